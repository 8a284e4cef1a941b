"""Where a video cuts from one shot to the next: a detector looks at small frames and says which of them begin a shot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.errors import ParamsError
from smolvlm.media.labels import one_line
from smolvlm.media.sampled_video import VideoFrame
from smolvlm.options.declare import check, option

# Gets every frame in order, its longest edge SMALL_PX or less; gives those that begin a new shot. The first frame always does.
ShotDetector: TypeAlias = Callable[[Iterator[VideoFrame]], Iterator[VideoFrame]]
SMALL_PX = 64
_AROUND = 3  # frames before and after a cut that it is compared with


@dataclass(frozen=True)
class Shot:
    """Seconds from the first frame of the video: `start_s` is the shot's first frame, `end_s` the next one's, or the span's end."""

    start_s: float
    end_s: float


@dataclass(frozen=True, kw_only=True)
class CutDetector:
    """Hard cuts: the picture changes at once, by far more than around it, and stays changed. Fades and wipes are not found.

    threshold: least mean change of a pixel, in levels of 0 to 255.
    ratio: how often that must exceed the mean change between the frames around.
    min_shot_s: cuts sooner than this after the one before are passed over.
    """

    threshold: float = option(12.0, "Least mean change of a pixel, in levels of 0 to 255.", least=0)
    ratio: float = option(3.0, "How often that must exceed the mean change between the frames around.", least=0)
    min_shot_s: float = option(0.3, "Cuts sooner than this after the one before are passed over.", least=0)

    def __post_init__(self) -> None:
        check(self)

    def __call__(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        last_s = 0.0
        for before, frame, after in _with_neighbours(frames):
            if not before:
                last_s = frame.time_s
                continue
            change = _difference(before[-1], frame)
            if after:  # after a flash of a frame or two the picture is as before
                change = min(change, _difference(before[0], after[-1]))
            if change <= self.threshold or frame.time_s - last_s < self.min_shot_s:
                continue
            around = [_difference(a, b) for part in (before, [frame, *after]) for a, b in pairwise(part)]
            if change > self.ratio * (sum(around) / max(len(around), 1)):
                last_s = frame.time_s
                yield frame


def find_shots(frames: Iterator[VideoFrame], end_s: float, detector: ShotDetector) -> list[Shot]:
    """The shots of `frames`, which end at `end_s`."""
    begins: list[float] = []

    def watched() -> Iterator[VideoFrame]:
        for frame in frames:
            if not begins:
                begins.append(frame.time_s)
            yield frame

    try:
        found = [frame.time_s for frame in detector(watched())]
    except TypeError as error:
        raise ParamsError(f"the detector must be a function of frames that gives those that begin a shot ({one_line(error)}).") from None
    for _ in watched():  # a detector may stop early
        if begins:
            break
    if not begins:
        return []
    begins += sorted({time_s for time_s in found if time_s > begins[0]})
    return [Shot(start_s, stop_s) for start_s, stop_s in pairwise([*begins, max(end_s, begins[-1])])]


def _with_neighbours(frames: Iterator[VideoFrame]) -> Iterator[tuple[list[VideoFrame], VideoFrame, list[VideoFrame]]]:
    """Each frame with up to `_AROUND` frames before it and after it."""
    held: list[VideoFrame] = []
    at = 0  # of the next one to give
    for frame in frames:
        held.append(frame)
        if len(held) > at + _AROUND:
            yield held[:at], held[at], held[at + 1 :]
            at += 1
        if at > _AROUND:
            del held[0]
            at -= 1
    for place in range(at, len(held)):
        yield held[max(0, place - _AROUND) : place], held[place], held[place + 1 :]


def _difference(one: VideoFrame, other: VideoFrame) -> float:
    """Mean change of a value, 0 to 255; frames of two sizes belong to two shots."""
    if one.pixels.shape != other.pixels.shape:
        return 255.0
    change: npt.NDArray[np.int16] = np.subtract(one.pixels, other.pixels, dtype=np.int16)
    return float(np.abs(change).mean())
