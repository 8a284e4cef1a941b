"""The servers that are compared: how each is started, known to be ready, and ended."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks import peer_llama_server
from benchmarks.machine import ROOT
from benchmarks.serving_clients import Picture
from smolvlm.engines.native_engine import THREADS_VARIABLE

OURS = ("ours", "ours-q8")  # as it is; with the encoder in 8 bits, too
SYSTEMS = (*OURS, "llama-server", "transformers")
_READY = dict.fromkeys(OURS, "/ready") | {"llama-server": "/health", "transformers": "/health"}
_START_S, _STOP_S = 180.0, 30.0


@dataclass(frozen=True)
class Setting:
    """What a server is started with; `clients` is how many will ask at once."""

    folder: str  # a checkpoint, or a name that `smolvlm serve` knows
    threads: int
    clients: int
    picture: Picture


def command(system: str, setting: Setting, port: int) -> list[str]:
    """The command line. Raises FileNotFoundError for a peer that is not there."""
    if system == "llama-server":
        return peer_llama_server.command(Path(setting.folder), setting.threads, port, setting.clients, setting.picture.longest_edge)
    if system == "transformers":
        return [
            sys.executable,
            "-m",
            "benchmarks.peer_transformers_server",
            setting.folder,
            str(setting.threads),
            str(port),
            str(setting.picture.longest_edge),
        ]
    # Its defaults, but for the deadline: the last of 32 in line is answered late, on a slow machine later than 300 s.
    return [
        sys.executable,
        "-m",
        "smolvlm",
        "serve",
        "--model",
        setting.folder,
        "--served-name",
        "model",
        "--port",
        str(port),
        "--request-timeout-s",
        "3600",
        "--dtype",
        "auto" if system == "ours" else "vision=q8",
    ]


@contextmanager
def serving(system: str, setting: Setting, log: Path) -> Iterator[str]:
    """A running server's address; the server ends with the block. Its output goes to `log`.

    Raises FileNotFoundError as `command` does, and RuntimeError for one that does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    started = command(system, setting, port)
    threads = str(setting.threads)
    environment = os.environ | {THREADS_VARIABLE: threads, "OMP_NUM_THREADS": threads}
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("w") as out:
        process = subprocess.Popen(started, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(system, process, url, log)
        yield url
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(system: str, process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    limit = time.monotonic() + _START_S
    while True:
        if process.poll() is not None:
            raise RuntimeError(f"{system} ended with code {process.returncode} before it was ready; see {log}.")
        try:
            if httpx.get(url + _READY[system], trust_env=False).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if time.monotonic() > limit:
            raise RuntimeError(f"{system} was not ready after {_START_S:g} s; see {log}.")
        time.sleep(0.1)
