"""A page in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MEDIA = ROOT / "examples" / "media" / "nano"


class Server:
    """`smolvlm ui` as a user starts it."""

    def __init__(self, *args: object, launch: tuple[str, ...] = ("-m", "smolvlm")) -> None:
        """`launch`: how Python starts the program."""
        environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "SMOLVLM_THREADS": "1"}
        self.process = subprocess.Popen(
            [sys.executable, *launch, "ui", "--port", "0", "--no-browser", *map(str, args)],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()  # the address comes when it listens
        assert " on http://" in line, f"the page did not start: {line!r}"
        self.address = line.split()[-1]

    def close(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(20)
