"""The engine under ThreadSanitizer and AddressSanitizer: without Python 1,000 random schedules, threads, cancelled calls; through
Python eight threads that call everything at once."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import smolvlm
from helpers_processes import run_script

NATIVE = Path(__file__).resolve().parents[2] / "native"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="needs cmake and g++"),
    pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are tried on Linux"),
]


@pytest.mark.parametrize(("sanitizer", "schedules"), [("", 1000), ("thread", 120), ("address", 240), ("undefined", 120)], ids=str)
def test_engine(tmp_path: Path, sanitizer: str, schedules: int) -> None:
    options = ["-DSMOLVLM_PYTHON=OFF", "-DSMOLVLM_TESTS=ON", f"-DSMOLVLM_SANITIZE={sanitizer}"]
    for command in (
        ["cmake", "-S", NATIVE, "-B", tmp_path, *options],
        ["cmake", "--build", tmp_path, "--target", "engine_test", "--parallel", "2"],
    ):
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    ran = subprocess.run([tmp_path / "engine_test", str(schedules)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    assert "schedules agree" in ran.stdout
    assert "runtime error" not in ran.stderr  # how UndefinedBehaviorSanitizer reports what it lets pass


THROUGH_PYTHON = """
import sys, threading
import numpy as np
from pathlib import Path
from smolvlm.config import load_configs
from smolvlm.engines import _native
from smolvlm.engines.native_engine import NativeEngine

assert _native.__file__.startswith(sys.argv[2]), _native.__file__
config, _ = load_configs(Path(sys.argv[1]))
engine = NativeEngine(Path(sys.argv[1]), config, dtype="q8", threads=2, instructions="scalar")
side, ended = config.vision.image_size, threading.Event()

def work(seed):
    rng = np.random.default_rng(seed)
    for _ in range(3):
        embeds = engine.encode_images(rng.normal(size=(1, 3, side, side)))
        seq = engine.open(200)
        engine.prefill(seq, [5] * 20 + [config.image_token_id] * config.image_seq_len, [embeds])
        other = engine.fork(seq)
        for token in range(5, 9):
            engine.decode([seq, other], [token, token])
        engine.rewind(other, 3)
        engine.length(other), engine.nbytes, engine.packed.pages_in_use, engine.packed.matrix("head"), engine.packed.vectors
        engine.close(seq)
        engine.close(other)

def cancel():
    while not ended.wait(0.01):
        engine.packed.threads, engine.packed.instructions, engine.packed.capacity(kept)

kept = engine.open(5)
threads = [threading.Thread(target=work, args=(seed,)) for seed in range(7)]
watcher = threading.Thread(target=cancel)
for thread in (watcher, *threads):
    thread.start()
for thread in threads:
    thread.join()
ended.set()
watcher.join()
engine.cancel()
print("done")
"""


def test_threads_of_python_under_thread_sanitizer(tmp_path: Path, tiny_checkpoint: Path) -> None:
    library = subprocess.run(["g++", "-print-file-name=libtsan.so"], capture_output=True, text=True).stdout.strip()
    if not os.path.isabs(library):
        pytest.skip("g++ came without libtsan")
    build, package = tmp_path / "build", tmp_path / "site" / "smolvlm"
    options = [f"-DPython_EXECUTABLE={sys.executable}", "-DSMOLVLM_SANITIZE=thread"]
    for command in (["cmake", "-S", NATIVE, "-B", build, *options], ["cmake", "--build", build, "--target", "_native", "--parallel", "2"]):
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    shutil.copytree(Path(smolvlm.__file__).parent, package, ignore=shutil.ignore_patterns("_native*.so", "__pycache__"))
    shutil.copy(next(build.glob("_native*.so")), package / "engines")
    # glibc frees the TLS of a thread that has ended, in whichever thread ends next, under a lock that TSan does not see.
    (tmp_path / "suppressions").write_text("race:dl_deallocate_tls\n")
    env = {
        "PYTHONPATH": str(package.parent),
        "LD_PRELOAD": library,
        "TSAN_OPTIONS": f"exitcode=66 report_signal_unsafe=0 suppressions={tmp_path / 'suppressions'}",
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }
    assert run_script(THROUGH_PYTHON, str(tiny_checkpoint), str(package), deadline_s=1500, env=env) == "done\n"
