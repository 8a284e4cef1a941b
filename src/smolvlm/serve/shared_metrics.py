"""The counters of several server processes as one: whichever is asked for `/metrics` answers for all.

Each process writes its values to files of its own in a folder that all of them read (prometheus_client's multiprocess mode).
What a process has counted stays in the sums when it is gone, so counters never fall; its gauges go with it.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from smolvlm.errors import SmolVLMError
from smolvlm.serve.metrics import Metrics

_ROOM_BYTES = 128 * 1024  # of a file, far more than our metrics with all their labels take
FOLDER_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it once, when it is imported


class SharedMetrics(Metrics):
    """The counters of one worker, in the folder that the environment names. Call `refresh` every second.

    Raises SmolVLMError when there is no room for them.
    """

    def __init__(self) -> None:
        self._folder = os.environ[FOLDER_VARIABLE]
        self._gauges: list[tuple[Gauge, Callable[[], float]]] = []
        super().__init__()
        self.gauge("worker_processes", "Server processes that are ready.", lambda: 1)
        self._take_room()

    def gauge(self, name: str, text: str, value: Callable[[], float]) -> None:
        """A gauge, shown as the sum over the living workers: up to a second old for all but the one that is asked."""
        made = Gauge(f"smolvlm_{name}", text, registry=self._registry, multiprocess_mode="livesum")
        self._gauges.append((made, value))

    def _take_room(self) -> None:
        """The files are mapped and have holes: on a disk that is full by then, writing into one would kill the process."""
        if not hasattr(os, "posix_fallocate"):  # macOS
            return
        try:
            for file in Path(self._folder).glob(f"*_{os.getpid()}.db"):
                with file.open("r+b") as stream:
                    os.posix_fallocate(stream.fileno(), 0, _ROOM_BYTES)
        except OSError as error:
            raise SmolVLMError(f"{self._folder}: no room for the server's counters ({error.strerror}).") from None

    def refresh(self) -> None:
        """Write down what the gauges say now."""
        for gauge, value in self._gauges:
            gauge.set(value())

    def render(self) -> bytes:
        self.refresh()
        registry = CollectorRegistry()
        MultiProcessCollector(registry, path=self._folder)  # type: ignore[no-untyped-call]
        return generate_latest(registry)


def forget_gauges(folder: Path, pid: int) -> None:
    """Of a worker that has ended."""
    with contextlib.suppress(OSError):
        mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]
