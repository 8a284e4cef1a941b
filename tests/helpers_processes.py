"""Scripts in processes of their own, for what would end or freeze the tests' process: a deadline, then every thread's stack."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

_STACKS = "import faulthandler; faulthandler.dump_traceback_later({after}, exit=True)\n"


def peak_bytes() -> int:
    """The most physical memory that this process has had. `ru_maxrss` of a child starts at its parent's on Linux, which is that of
    a long run of tests."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(1024 * int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def run_script(script: str, *arguments: str, deadline_s: float = 240, env: dict[str, str] | None = None, forks: bool = False) -> str:
    """What `script` printed. Fails the test when it ends in an error or not before the deadline.

    `forks`: no stacks at the deadline. A forked child that ends would wait for the thread that is to write them.
    """
    begin = "" if forks else _STACKS.format(after=deadline_s)
    command = [sys.executable, "-X", "faulthandler", "-c", begin + script, *arguments]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=deadline_s + 60, env={**os.environ, **(env or {})})
    assert ran.returncode == 0, f"exit code {ran.returncode}\n{ran.stdout[-2000:]}\n{ran.stderr[-6000:]}"
    assert "nanobind: leaked" not in ran.stderr, ran.stderr[-2000:]
    return ran.stdout
