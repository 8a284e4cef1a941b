"""A frame of a stream, and the look-back buffer that keeps the newest of them."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """`time_s` is Unix time; `pixels` uint8 (height, width, 3); `grey` the motion gate's small picture."""

    time_s: float
    pixels: Pixels
    grey: Pixels


class LookBack:
    """The frames of the last `seconds`, never more than `max_bytes` of pixels."""

    def __init__(self, seconds: float, max_bytes: int = 128_000_000) -> None:
        self._seconds, self._max_bytes = seconds, max_bytes
        self._frames: deque[Frame] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frame: Frame) -> None:
        """A clock that was set back empties the buffer: its times must rise."""
        if self._frames and frame.time_s <= self._frames[-1].time_s:
            self.clear()
        self._frames.append(frame)
        self._bytes += frame.pixels.nbytes
        while len(self._frames) > 1 and (frame.time_s - self._frames[0].time_s > self._seconds or self._bytes > self._max_bytes):
            self._bytes -= self._frames.popleft().pixels.nbytes

    def clear(self) -> None:
        self._frames.clear()
        self._bytes = 0

    def between(self, begin_s: float, end_s: float) -> list[Frame]:
        """The frames of a span, in order."""
        return [frame for frame in self._frames if begin_s <= frame.time_s <= end_s]

    def window(self, end_s: float, count: int, step_s: float) -> list[Frame]:
        """Up to `count` frames `step_s` apart, the last of them the newest that is not after `end_s`; none twice."""
        return self.at([end_s - step_s * i for i in reversed(range(count))])

    def at(self, times_s: Sequence[float]) -> list[Frame]:
        """The newest frame that is not after each time, none twice, none of another size than the last."""
        found: list[Frame] = []
        for time_s in times_s:
            older = [frame for frame in self._frames if frame.time_s <= time_s + 1e-6]
            if older and (not found or older[-1] is not found[-1]):
                found.append(older[-1])
        return [frame for frame in found if frame.pixels.shape == found[-1].pixels.shape]
