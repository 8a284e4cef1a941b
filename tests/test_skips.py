"""What the test run says of skipped tests, and that CI fails of them: pytest in a process of its own, on a folder made here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SKIPS = 'import pytest\n@pytest.mark.parametrize("i", [1, 2])\n@pytest.mark.skipif(True, reason="{reason}")\ndef test_it(i): ...\n'


@pytest.mark.parametrize(
    ("reason", "strict", "code", "processes"),
    [("no Chromium", "1", 1, "2"), ("no Chromium", "", 0, "0"), ("root may write anywhere", "1", 0, "0")],
)
def test_a_skip_is_said_and_fails_ci_unless_allowed(tmp_path: Path, reason: str, strict: str, code: int, processes: str) -> None:
    (tmp_path / "test_made.py").write_text(SKIPS.format(reason=reason) + "def test_passes(): ...\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "helpers_skips", "-p", "xdist", "-n", processes, "-p", "no:cacheprovider", "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": str(TESTS), "SMOLVLM_NO_SKIPS": strict, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
    )
    assert run.returncode == code, run.stdout + run.stderr
    assert f"2 tests: {reason}" in run.stdout
    assert ("without a reason that" in run.stdout) == bool(code)
