"""A `smolvlm serve` in a process of its own, with a look at its memory, its metrics and its children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil

START_S = 120.0


class ServerProcess:
    """A running server. `url` has no path; `log` is what it writes to stderr."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log
        self._watched = psutil.Process(process.pid)

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.url.removeprefix("http://").rsplit(":", 1)
        return host, int(port)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        total = 0.0
        for line in httpx.get(f"{self.url}/metrics", timeout=60, trust_env=False).text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.split("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total

    def decoders(self) -> list[psutil.Process]:
        """The decoding processes."""
        found = []
        for child in self._watched.children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "smolvlm.media.sandbox.worker" in child.cmdline():
                    found.append(child)
        return found

    def memory_bytes(self) -> int:
        """Physical memory of the server and its children; what they share is counted once (PSS), where the system tells."""
        total = 0
        for process in (self._watched, *self._watched.children(recursive=True)):
            with contextlib.suppress(psutil.Error):  # it ended meanwhile
                memory = process.memory_full_info()
                total += getattr(memory, "pss", memory.rss)
        return total

    def open_files(self) -> int:
        """Open descriptors of the server itself."""
        return int(self._watched.num_fds())

    def files_at_rest(self) -> int:
        """Open descriptors once what was closed a moment ago is gone: the fewest within a second."""
        fewest, until = self.open_files(), time.monotonic() + 1
        while time.monotonic() < until:
            time.sleep(0.05)
            fewest = min(fewest, self.open_files())
        return fewest

    def threads(self) -> int:
        return int(self._watched.num_threads())

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)


@contextmanager
def run_server(log: Path, *flags: str, model: str = "nano", environ: Mapping[str, str] | None = None) -> Iterator[ServerProcess]:
    """`smolvlm serve` on a free port, ready; killed at the end if it still runs. Raises RuntimeError when it does not start.

    One engine thread, so that clients have a core to themselves on a machine with two.
    """
    command = [sys.executable, "-m", "smolvlm", "serve", "--model", model, "--port", "0", *flags]
    env = {**os.environ, "SMOLVLM_THREADS": "1", **(environ or {})}
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env)
    try:
        assert process.stdout is not None, "started with a pipe"
        line = process.stdout.readline()
        if " on http://" not in line:
            raise RuntimeError(f"the server did not start: {_end_of(log)}")
        server = ServerProcess(process, line.split()[-1], log)
        deadline = time.monotonic() + START_S
        while not _is_ready(server.url):
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the server is not ready: {_end_of(log)}")
            time.sleep(0.05)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        if process.stdout is not None:
            process.stdout.close()


def _end_of(log: Path) -> str:
    if not log.is_file():  # a device may never end
        return ""
    return log.read_text()[-2000:]


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready", trust_env=False).status_code == 200
    except httpx.TransportError:
        return False
