"""One of several server processes: `python -m smolvlm.serve.worker`, started by `workers.Supervisor` and by nobody else.

Its standard input brings one line, a `Setup`, and then stays open: its end means that the supervisor is gone, and the worker
drains as on SIGTERM. Its standard output takes one line: that it is ready, or why it will never be.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import signal
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from smolvlm.errors import SmolVLMError
from smolvlm.serve.app import Shared, create_app
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.fair_socket import FairSocket, Loads
from smolvlm.serve.logs import log_as_json
from smolvlm.serve.server import Watch, run
from smolvlm.serve.shared_metrics import SharedMetrics
from smolvlm.vlm import load

METRICS, QUOTAS, LOADS = "metrics", "quotas", "loads"  # in the shared folder


@dataclass(frozen=True)
class Setup:
    """What a worker is told: the model's name, the settings, the number of the open file that is the bound socket, the folder
    that all workers share, and which of them it is."""

    model: str
    config: dict[str, Any]
    socket: int
    folder: str
    place: int

    def line(self) -> bytes:
        return json.dumps(dataclasses.asdict(self)).encode() + b"\n"


class _Report:
    """The one line to the supervisor."""

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def ready(self) -> None:
        self._tell({"ready": True})

    def failed(self, error: SmolVLMError) -> None:
        self._tell({"error": str(error)})

    def _tell(self, line: dict[str, Any]) -> None:
        try:
            self._stream.write(json.dumps(line) + "\n")
            self._stream.flush()
        except OSError:
            return  # the supervisor is gone; the end of the input says so too


def _name_in_logs(record: logging.LogRecord) -> bool:
    """Every line says which process wrote it."""
    record.facts = getattr(record, "facts", {}) | {"pid": os.getpid()}
    return True


def _end_with_the_supervisor() -> None:
    while os.read(0, 4096):  # past Python's buffer, whose lock a thread must not hold when the process ends
        continue
    os.kill(os.getpid(), signal.SIGTERM)


def main() -> int:
    """The exit status: 0 after a drain, 2 for what the supervisor has been told in a sentence."""
    report = _Report(os.fdopen(os.dup(sys.stdout.fileno()), "w"))
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what a library prints is no report
    setup = Setup(**json.loads(sys.stdin.buffer.readline() or b"{}"))
    threading.Thread(target=_end_with_the_supervisor, daemon=True).start()
    config = ServeConfig(**setup.config)
    log_as_json(config.log_level)
    for handler in logging.getLogger("smolvlm").handlers:
        handler.addFilter(_name_in_logs)
    # Not at the top: Windows has no such locks, and must be able to import `Setup` all the same.
    from smolvlm.serve.shared_quotas import SharedQuotas

    try:
        metrics = SharedMetrics()
        shared = Shared(metrics, SharedQuotas(config.key_rate, config.key_concurrency, Path(setup.folder) / QUOTAS))
        model = load(
            setup.model, adapter=config.adapter, engine=config.engine, device=config.device, dtype=config.dtype
        )
        app, found = create_app(model, config, shared)
        listening = FairSocket(setup.socket, Loads(Path(setup.folder) / LOADS), setup.place)
        run(app, found, listening, Watch(report.ready, metrics.refresh))
    except SmolVLMError as error:
        report.failed(error)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
