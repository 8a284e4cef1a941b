"""Scripts in processes of their own, for what would end or freeze the tests' process: a deadline, then every thread's stack."""

from __future__ import annotations

import os
import subprocess
import sys

_STACKS = "import faulthandler; faulthandler.dump_traceback_later({after}, exit=True)\n"


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
