"""Quantized folders: the same bits as quantizing at load, mapped and not copied, and every broken file refused by name."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open

import smolvlm
from smolvlm.checkpoint.native_file import NATIVE_FILE, NativeFile
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import load_configs
from smolvlm.engines.native_engine import Formats, NativeEngine
from smolvlm.engines.native_quantize import quantize
from smolvlm.engines.select import make_engine
from smolvlm.errors import AdapterError, CheckpointError, EngineError

pytest.importorskip("smolvlm.engines._native", reason="the native engine is not built here")

IDS = np.random.default_rng(3).integers(3, 40_000, 50).tolist()
MIXED = "vision=q8,text=q4,head=bf16"


@pytest.fixture(scope="module")
def packed(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With all three formats in one file."""
    out = tmp_path_factory.mktemp("quantized") / "mixed"
    quantize(tiny_checkpoint, out, dtype=MIXED)
    return out


def outputs(engine: NativeEngine) -> tuple[np.ndarray, np.ndarray]:
    side = engine.config.vision.image_size
    pixels = np.random.default_rng(1).standard_normal((1, 3, side, side), dtype=np.float32)
    seq = engine.open(60)
    return engine.encode_images(pixels).numpy(), engine.prefill(seq, IDS, logits_to_keep=0)


@pytest.mark.parametrize("dtype", ["q8", "q4", "bfloat16", MIXED])
def test_mapped_equals_quantised_at_load(tiny_checkpoint: Path, tmp_path: Path, dtype: str) -> None:
    config, _ = load_configs(tiny_checkpoint)
    steps: list[tuple[int, int]] = []
    formats = quantize(tiny_checkpoint, tmp_path / "out", dtype=dtype, on_tensor=lambda *step: steps.append(step))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    ours = NativeEngine(tmp_path / "out", load_configs(tmp_path / "out")[0])
    assert ours.formats == formats == Formats.of(dtype, ours.instructions)
    for mapped, quantized in zip(outputs(ours), outputs(NativeEngine(tiny_checkpoint, config, dtype=dtype)), strict=True):
        assert np.array_equal(mapped, quantized)


def test_the_file_is_plain_safetensors_at_multiples_of_64(packed: Path) -> None:
    """The reference's own reader opens it; the packed scales and vectors are those of the float32 original."""
    with safe_open(packed / NATIVE_FILE, "numpy") as file:
        metadata = file.metadata()
        norm = file.get_tensor("text.norm")
        embedding = file.get_slice("embedding")
        assert embedding.get_dtype() == "BF16"
    assert (metadata["format"], metadata["version"]) == ("smolvlm-native", "1")
    assert (metadata["vision"], metadata["text"], metadata["head"]) == ("q8", "q4", "bf16")
    assert re.fullmatch("[0-9a-f]{32}", metadata["fingerprint"])
    assert all(info.offset % 64 == 0 for info in NativeFile(packed).infos.values())
    assert norm.dtype == np.float32
    assert norm.size % 32 == 0


def test_the_small_files_are_the_originals(tiny_checkpoint: Path, packed: Path) -> None:
    names = {path.name for path in tiny_checkpoint.iterdir()} - {"model.safetensors"} | {NATIVE_FILE}
    assert {path.name for path in packed.iterdir()} == names
    for name in names - {NATIVE_FILE}:
        assert (packed / name).read_bytes() == (tiny_checkpoint / name).read_bytes()


def test_weights_are_mapped_not_copied(packed: Path, tiny_checkpoint: Path) -> None:
    config, _ = load_configs(packed)
    mapped, copied = NativeEngine(packed, config), NativeEngine(tiny_checkpoint, config, dtype=MIXED)
    assert copied.nbytes - mapped.nbytes > 0.9 * (packed / NATIVE_FILE).stat().st_size
    data, _scales = mapped.packed.matrix("head")
    assert not data.flags.writeable


def test_load_recognises_it(packed: Path) -> None:
    model = smolvlm.load(packed)
    assert (model.engine.name, model.engine.dtype) == ("native", MIXED)
    assert model.ask(None, "Hello?", max_new_tokens=3).usage.completion_tokens >= 1
    assert smolvlm.load(packed, dtype="text=q4").engine.dtype == MIXED
    assert smolvlm.load(packed, dtype="kv=q8").engine.dtype == f"{MIXED},kv=q8"  # the cache is no part of the file


def test_what_only_the_original_gives(packed: Path, tiny_checkpoint: Path, tmp_path: Path) -> None:
    config, _ = load_configs(packed)
    with pytest.raises(EngineError, match=r"is quantized as vision=q8,text=q4,head=bf16 .* as text=q8; leave dtype out"):
        make_engine(packed, config, dtype="q8")
    with pytest.raises(CheckpointError, match=r"quantized for the native engine.*use the original"):
        make_engine(packed, config, engine="torch")
    with pytest.raises(CheckpointError, match=r"quantized for the native engine.*use the original"):
        CheckpointReader(packed)
    with pytest.raises(AdapterError, match="merge the adapter"):
        NativeEngine(packed, config, adapter=object())  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match="is quantized already"):
        quantize(packed, tmp_path / "again")
    with pytest.raises(CheckpointError, match="is the checkpoint itself"):
        quantize(tiny_checkpoint, tiny_checkpoint, overwrite=True)


def test_without_a_native_build(packed: Path, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("smolvlm.engines.native_engine.native_module", lambda: None)
    with pytest.raises(EngineError, match="native engine is not part of this installation"):
        make_engine(packed, load_configs(packed)[0])
    with pytest.raises(EngineError, match="native engine is not part of this installation"):
        quantize(tiny_checkpoint, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def rewritten(packed: Path, folder: Path, change: str) -> Path:
    """The folder with one thing wrong in its file, everything else as it should be."""
    shutil.copytree(packed, folder)
    path = folder / NATIVE_FILE
    data = bytearray(path.read_bytes())
    length = int.from_bytes(data[:8], "little")
    header, body = json.loads(data[8 : 8 + length]), data[8 + length :]

    def place(name: str) -> int:
        return int(header[name]["data_offsets"][0])

    if change == "version":
        header["__metadata__"]["version"] = "2"
    elif change == "format":
        header["__metadata__"] = {"format": "pt"}
    elif change == "kept":
        header["__metadata__"]["text"] = "q2"
    elif change == "other sizes":
        header["__metadata__"]["text"] = "q8"
    elif change == "scale":
        body[place("text.1.down.scales") + 6 : place("text.1.down.scales") + 8] = np.float16(np.inf).tobytes()
    elif change == "vector":
        body[place("vision.0.norm1.bias") : place("vision.0.norm1.bias") + 4] = np.float32(np.nan).tobytes()
    elif change == "head":
        body[place("head.data") + 10 : place("head.data") + 12] = b"\x80\x7f"  # infinity in bfloat16
    elif change == "embedding":
        body[place("embedding") : place("embedding") + 2] = b"\xc0\x7f"
    elif change == "missing":
        header["text.2.norm3"] = header.pop("text.2.norm1")
    elif change == "type":
        header["text.0.qkv.data"]["dtype"] = "I8"
    elif change == "short":
        body = body[:-64]
    elif change == "smaller":
        header["embedding"]["shape"][0] -= 32
        header["embedding"]["data_offsets"][1] -= 32 * 2 * header["embedding"]["shape"][1]
        body = body[: header["embedding"]["data_offsets"][1]]
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % (64 if change != "unaligned" else 1) + (1 if change == "unaligned" else 0))
    path.write_bytes(len(text).to_bytes(8, "little") + text + body)
    return folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("version", r"version 2 .* reads 1; quantize the original"),
        ("format", "was not written by `smolvlm quantize`"),
        ("kept", "text=q2 is not one of"),
        ("other sizes", r"text.0.qkv has another size"),
        ("scale", r"text.1.down holds values that are not finite"),
        ("vector", r"vision.0.norm1.bias holds .* not finite"),
        ("head", r"head holds values that are not finite"),
        ("embedding", r"embedding holds values that are not finite"),
        ("missing", r"text.2.norm1 is missing"),
        ("type", r"text.0.qkv.data is I8, not U8"),
        ("short", "truncated"),
        ("unaligned", "does not begin at a multiple of 64"),
        ("smaller", "embedding has another size"),
    ],
)
def test_a_broken_file_is_refused_by_name(packed: Path, tmp_path: Path, change: str, message: str) -> None:
    folder = rewritten(packed, tmp_path / "broken", change)
    with pytest.raises(CheckpointError, match=message) as refused:
        NativeEngine(folder, load_configs(folder)[0])
    assert NATIVE_FILE in str(refused.value)


def test_a_changed_configuration_is_refused(packed: Path, tmp_path: Path) -> None:
    shutil.copytree(packed, tmp_path / "other")
    config = json.loads((tmp_path / "other" / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] -= 1
    (tmp_path / "other" / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"text.2.* is no part of this model"):
        smolvlm.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("dtype", "formats"),
    [
        ("auto", ("q8", "q8", "q8")),
        ("q8", ("q8", "q8", "q8")),
        ("q4", ("q8", "q4", "q8")),
        ("bfloat16", ("bf16", "bf16", "bf16")),
        ("text=q4", ("q8", "q4", "q8")),
        ("head=bfloat16", ("q8", "q8", "bf16")),
        (" vision = bf16 , text=auto", ("bf16", "q8", "q8")),
        ("head=q4,vision=q4,text=q4", ("q4", "q4", "q4")),
        ("q4,head=q4", ("q8", "q4", "q4")),
        ("auto, kv=q8", ("q8", "q8", "q8")),
        ("bfloat16,text=q8,kv=q8", ("bf16", "q8", "bf16")),
    ],
)
def test_formats_part_by_part(dtype: str, formats: tuple[str, str, str]) -> None:
    found = Formats.of(dtype, "avx2")
    assert (found.vision, found.text, found.head) == formats
    again = Formats.of(str(found), "avx2")  # what is shown can be typed; a plain name leaves the encoder to the machine
    assert (again.text, again.head, again.kv) == (found.text, found.head, found.kv)
    assert found.kv == ("q8" if "kv" in dtype else "bf16")
    assert Formats.of("auto", "avx512_bf16").vision == "bf16"


@pytest.mark.parametrize(
    "dtype", ["", "q9", "text=q9", "text=q4,text=q8", "tower=q8", "text=q4;head=q8", "=", "text=", "q4,q8", "kv=q4", "q8,"]
)
def test_a_dtype_that_means_nothing(dtype: str) -> None:
    with pytest.raises(EngineError, match=r"head=q8"):
        Formats.of(dtype, "avx2")
