"""The thread pool without the engine: every index once with up to 64 threads, and a worker that stalls gets no work for a while."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"
SOURCES = (NATIVE / "tests" / "thread_pool_test.cpp", NATIVE / "runtime" / "thread_pool.cpp")


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++")
@pytest.mark.skipif(sys.platform == "win32", reason="built with g++'s options")
@pytest.mark.parametrize("sanitizer", ["", pytest.param("thread", marks=pytest.mark.slow)], ids=["plain", "ThreadSanitizer"])
def test_thread_pool(tmp_path: Path, sanitizer: str) -> None:
    options = [f"-fsanitize={sanitizer}"] if sanitizer else []
    program = tmp_path / "thread_pool_test"
    built = subprocess.run(
        ["g++", "-std=c++20", "-O2", *options, "-pthread", f"-I{NATIVE}", *SOURCES, "-o", program], capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr[-4000:]
    ran = subprocess.run([program], capture_output=True, text=True, timeout=240)
    assert ran.returncode == 0, ran.stdout + ran.stderr[-4000:]
    assert "the thread pool holds" in ran.stdout
