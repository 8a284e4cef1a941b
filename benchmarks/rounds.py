"""Workers and their turns: who runs when, and what comes back."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.machine import ROOT

_PAUSE_S = 0.3  # other systems' threads may spin for 0.2 s after their last product (OpenMP's block time)


@dataclass
class Worker:
    """A child process that answers one request at a time."""

    system: str
    process: subprocess.Popen[str]
    load: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, system: str, folder: Path, threads: int, *options: str) -> Worker:
        command = [sys.executable, "-m", "benchmarks.worker", system, str(folder), str(threads), *options]
        pipe = subprocess.PIPE
        worker = cls(system, subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, bufsize=1))
        worker.load = worker._reply()
        return worker

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None, "started with a pipe"
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
        except BrokenPipeError:
            return {"error": f"the process ended with code {self.process.wait()}"}
        return self._reply()

    def stop(self) -> None:
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # it died with a request unread
                self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:  # interrupted in the middle of a long task
            self.process.kill()

    def _reply(self) -> dict[str, Any]:
        """Its next line. A process that died says so: no other system loses its figures by that."""
        assert self.process.stdout is not None, "started with a pipe"
        line = self.process.stdout.readline()
        if not line:
            return {"error": f"the process ended with code {self.process.wait()}"}
        reply: dict[str, Any] = json.loads(line)
        return reply


def prepare(system: str, folder: Path, threads: int) -> dict[str, Any]:
    """Have the files written that the system reads, in a process that ends; its last word."""
    worker = Worker.start(system, folder, threads, "--prepare")
    worker.stop()
    return worker.load


def absent(reply: dict[str, Any]) -> str | None:
    """Why a system takes no part, or None."""
    reason = reply.get("absent") or reply.get("error")
    return None if reason is None else str(reason)


def measure(
    workers: list[Worker], request: dict[str, Any], rounds: int, once: Iterable[str], console: Console
) -> dict[str, list[dict[str, Any]]]:
    """All rounds of one task; the order changes from round to round. Systems named in `once` run in the first one only.

    A system that fails is out of this task, with a message; without one good round it is not in the result.
    """
    results: dict[str, list[dict[str, Any]]] = {worker.system: [] for worker in workers}
    failed: set[str] = set()
    for number in range(rounds + 1):
        # Turned and reversed: over the rounds each has each place, and no one always follows the same.
        turned = workers[number % len(workers) :] + workers[: number % len(workers)]
        for worker in turned[::-1] if number % 2 else turned:
            if worker.system in failed or (worker.system in once and number != 1):
                continue
            time.sleep(_PAUSE_S)
            reply = worker.ask({**request, "seed": number})
            label = f"  {request['task']:11} {'warm-up' if number == 0 else f'round {number}':8} {worker.system:17}"
            if "error" in reply:
                console.print(f"{label} failed: {reply['error']}", highlight=False, markup=False)
                failed.add(worker.system)
                continue
            console.print(f"{label} {reply['seconds']:8.3f} s", highlight=False)
            if number:
                results[worker.system].append(reply)
    return {system: runs for system, runs in results.items() if runs}


def stop(workers: Iterable[Worker]) -> None:
    for worker in workers:
        worker.stop()
