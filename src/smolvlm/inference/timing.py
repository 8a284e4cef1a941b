"""What the time since a call went to."""

from __future__ import annotations

import time


class Clock:
    """Laps are seconds of one answer's own work; of answers that are made together each has a clock, and what is done for
    the others is in no lap of its own."""

    def __init__(self, began: float | None = None) -> None:
        """`began`: when the call came, by `time.perf_counter`; now if it is not given."""
        self.began = self._last = time.perf_counter() if began is None else began
        self.laps: dict[str, float] = {}
        self.first_token_s: float | None = None

    def lap(self, name: str) -> None:
        """What passed since the last lap went to `name`."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """What passed since the last lap was for other answers."""
        self._last = time.perf_counter()

    def first_token(self) -> None:
        """The first token is here."""
        if self.first_token_s is None:
            self.first_token_s = self.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since the call."""
        return time.perf_counter() - self.began
