"""llama.cpp's own server on the same checkpoint. Built once from the sources that llama-cpp-python ships:

    mkdir -p .work/llama-server && cd .work/llama-server
    pip download --no-binary llama-cpp-python --no-deps llama-cpp-python==0.3.36 && tar xzf llama_cpp_python-0.3.36.tar.gz
    cmake -S llama_cpp_python-0.3.36/vendor/llama.cpp -B build -G Ninja -DCMAKE_BUILD_TYPE=Release -DGGML_NATIVE=ON \
        -DGGML_AMX_TILE=OFF -DGGML_AMX_INT8=OFF -DGGML_AMX_BF16=OFF -DBUILD_SHARED_LIBS=OFF -DLLAMA_OPENSSL=OFF \
        -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF
    cmake --build build --target llama-server -j 2

The decoder's GGUF is that of benchmarks/peer_llama.py; the encoder's ("mmproj") is made by llama.cpp's own converter. It cuts
pictures up as the official processor does: with `longest_edge` 2048 a picture of 1280 x 720 is 4 x 3 tiles and the whole.
"""

from __future__ import annotations

import functools
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks import material
from benchmarks.machine import WORK
from benchmarks.peer_llama import model_file

HOME = WORK / "llama-server"
BINARY = HOME / "build" / "bin" / "llama-server"
_ROOM = 1280  # tokens of context a client: the longest prompt has 935, and 32 follow
# The fastest that the converter writes, where the processor has products of bf16: with one thread a picture of 5 tiles took
# 7.6 s in bf16, 9.5 s in f16, 9.8 s in f32 and 11.5 s in Q8_0.
_VISION = "bf16"


def prepare(folder: Path, longest_edge: int) -> tuple[Path, Path, Path]:
    """The GGUF files of the decoder and of the encoder, and the chat template. Raises FileNotFoundError without a build."""
    if not BINARY.exists():
        raise FileNotFoundError("llama-server is not built; benchmarks/peer_llama_server.py says how.")
    name = f"mmproj-{_VISION}-{longest_edge}"
    return (
        model_file(folder, "q8"),
        material.for_peer(folder, name, functools.partial(_convert, folder, longest_edge)) / "mmproj.gguf",
        material.for_peer(folder, "chat-template", functools.partial(_write_template, folder)) / "template.jinja",
    )


def command(folder: Path, threads: int, port: int, clients: int, longest_edge: int) -> list[str]:
    """A slot for each client, continuous batching (its default), no time limit that a client at the end of the line meets."""
    text, vision, template = prepare(folder, longest_edge)
    return [
        str(BINARY),
        "--model",
        str(text),
        "--mmproj",
        str(vision),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--parallel",
        str(clients),
        "--ctx-size",
        str(clients * _ROOM),
        "--threads",
        str(threads),
        "--threads-batch",
        str(threads),
        "--jinja",
        "--chat-template-file",
        str(template),
        "--timeout",
        "3600",
    ]


def _convert(folder: Path, longest_edge: int, out: Path) -> None:
    """llama.cpp's converter on the checkpoint, whose processor is told another `longest_edge`."""
    (converter,) = HOME.glob("llama_cpp_python-*/vendor/llama.cpp/convert_hf_to_gguf.py")
    with tempfile.TemporaryDirectory() as changed:
        for file in folder.iterdir():
            (Path(changed) / file.name).symlink_to(file.resolve())
        settings = json.loads((folder / "preprocessor_config.json").read_text(encoding="utf-8"))
        settings["size"] = {"longest_edge": longest_edge}
        own = Path(changed) / "preprocessor_config.json"
        own.unlink()
        own.write_text(json.dumps(settings), encoding="utf-8")
        made = [sys.executable, str(converter), changed, "--mmproj", "--outtype", _VISION]
        done = subprocess.run([*made, "--outfile", str(out / "mmproj.gguf")], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"llama.cpp's converter failed: {done.stderr.strip().splitlines()[-1]}")


def _write_template(folder: Path, out: Path) -> None:
    template = json.loads((folder / "chat_template.json").read_text(encoding="utf-8"))["chat_template"]
    (out / "template.jinja").write_text(template, encoding="utf-8")
