"""The engine without Python, under ThreadSanitizer and AddressSanitizer: 1,000 random schedules, threads, cancelled calls."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

NATIVE = Path(__file__).resolve().parents[2] / "native"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.skipif(shutil.which("cmake") is None or shutil.which("g++") is None, reason="needs cmake and g++"),
    pytest.mark.skipif(sys.platform != "linux", reason="the sanitizers are tried on Linux"),
]


@pytest.mark.parametrize(
    ("sanitizer", "schedules"), [("", 1000), ("thread", 120), ("address", 240), ("undefined", 120)], ids=str
)
def test_engine(tmp_path: Path, sanitizer: str, schedules: int) -> None:
    options = ["-DSMOLVLM_PYTHON=OFF", "-DSMOLVLM_TESTS=ON", f"-DSMOLVLM_SANITIZE={sanitizer}"]
    for command in (["cmake", "-S", NATIVE, "-B", tmp_path, *options],
                    ["cmake", "--build", tmp_path, "--target", "engine_test", "--parallel", "2"]):  # fmt: skip
        built = subprocess.run(command, capture_output=True, text=True)
        assert built.returncode == 0, built.stdout[-2000:] + built.stderr[-2000:]
    ran = subprocess.run([tmp_path / "engine_test", str(schedules)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout[-2000:] + ran.stderr[-4000:]
    assert "schedules agree" in ran.stdout
    assert "runtime error" not in ran.stderr  # how UndefinedBehaviorSanitizer reports what it lets pass
