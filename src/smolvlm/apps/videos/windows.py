"""A video -> windows of a few frames inside one shot, read in one pass with constant memory.

Shots begin at key frames: encoders put one at a cut. A key frame is a cut where the frames looked at on both sides of it differ;
so are two frames without one between them that have little in common. Neighbouring windows of a shot share one frame, so that
each change between two frames lies inside some window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.apps.videos.settings import IndexSettings
from smolvlm.errors import VideoError
from smolvlm.media import Video, VideoFrame

_EDGE_PX = 512  # what the model is shown at most; a window holds a few such frames
_SMALL = (64, 36)
_BLOCKS = (8, 9)  # the small picture in 8 x 4 blocks of 8 x 9 pixels
_NEW = 4.0  # levels of 255 by which some block must change for a frame to show something new; grain and coding stay below 2
_CUT_AT_KEY = 12.0  # mean change from one frame to the next, with a key frame between them
_CUT = 45.0  # the same without
Small = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Window:
    """Frames of one shot: `start_s` to `end_s` in seconds; `last_frame_s` is the last frame's time."""

    number: int
    shot: int
    start_s: float
    end_s: float
    frames: tuple[VideoFrame, ...]

    @property
    def last_frame_s(self) -> float:
        return self.frames[-1].time_s


@dataclass(frozen=True)
class Longer:
    """The window before goes on until `end_s`: nothing new was seen."""

    end_s: float
    last_frame_s: float


@dataclass(eq=False)
class _Seen:
    frame: VideoFrame
    small: Small
    begins_shot: bool


@dataclass
class Progress:
    """Where a run goes on: the next window's number, its shot, and the time of the frame that it begins with."""

    number: int = 0
    shot: int = 0
    from_s: float = 0.0
    has_before: bool = field(default=False)  # a window before, whose last frame is the first one here


def windows(
    video: Video, settings: IndexSettings, begin: Progress | None = None, on_damage: Callable[[str], None] = lambda _: None
) -> Iterator[Window | Longer]:
    """The windows in order, from `begin` on. `on_damage` is told once of each stretch that cannot be decoded."""
    begin = begin or Progress()
    number, shot = begin.number, begin.shot
    held: list[_Seen] = []
    has_before = begin.has_before  # held[0] is the last frame of a window that was given

    def made(count: int, next_s: float) -> Window | Longer:
        """The first `count` frames held as a window; all but the last of them are let go."""
        nonlocal number, has_before
        taken = held[:count]
        del held[: count - 1]
        if has_before and not any(_differs(taken[0].small, seen.small) for seen in taken[1:]):
            return Longer(next_s, taken[-1].frame.time_s)
        window = Window(number, shot, taken[0].frame.time_s, next_s, _without_repeats(taken))
        number, has_before = number + 1, True
        return window

    for seen in _looked_at(video, settings, begin.from_s, on_damage):
        if seen.begins_shot and held:
            if len(held) > 1 or not has_before:
                yield made(len(held), seen.frame.time_s)
            held.clear()
            has_before = False
            shot += 1
        held.append(seen)
        if len(held) > settings.frames + 2:
            yield made(settings.frames, held[settings.frames].frame.time_s)
    if held and (len(held) > 1 or not has_before):
        yield made(len(held), max(video.duration_s, held[-1].frame.time_s))


def _looked_at(video: Video, settings: IndexSettings, from_s: float, on_damage: Callable[[str], None]) -> Iterator[_Seen]:
    keys = _key_times(video, from_s)
    key_s = next(keys, None)
    before: Small | None = None
    for frame in _frames(video, settings.every, from_s, on_damage):
        small = _small(frame)
        key_between = False
        while key_s is not None and key_s <= frame.time_s + 1e-6:
            key_between, key_s = True, next(keys, None)
        change = 0.0 if before is None else float(np.abs(small - before).mean())
        yield _Seen(frame, small, change > (_CUT_AT_KEY if key_between else _CUT))
        before = small


def _frames(video: Video, every_s: float, from_s: float, on_damage: Callable[[str], None]) -> Iterator[VideoFrame]:
    """A frame each `every_s` on one grid for the whole video; where some cannot be decoded, those behind them."""
    moment = math.ceil(from_s / every_s - 1e-6)
    step, last_s = 1, -1.0
    while moment * every_s < video.duration_s or moment == 0:
        try:
            for frame in video.frames(moment * every_s, fps=1 / every_s, longest_edge=_EDGE_PX):
                if frame.time_s > last_s + 1e-6:
                    yield frame
                    last_s, step = frame.time_s, 1
            return
        except VideoError as error:
            if step == 1:
                on_damage(f"from {max(last_s, moment * every_s):.1f} s on some of it cannot be decoded: {error}")
            moment = max(moment, math.floor(last_s / every_s + 1e-6)) + step
            step *= 2  # a file that is cut off ends this soon


def _key_times(video: Video, from_s: float) -> Iterator[float]:
    try:
        for frame in video.key_frames(from_s, longest_edge=_SMALL[0]):
            yield frame.time_s
    except VideoError:
        return  # damage is told by the frames that are shown


def _small(frame: VideoFrame) -> Small:
    picture = Image.fromarray(frame.pixels).convert("L").resize(_SMALL, Image.Resampling.BOX)
    return np.asarray(picture, np.float32)


def _differs(left: Small, right: Small) -> bool:
    """Whether some part of the picture has changed, even a small one."""
    wide, high = _BLOCKS
    change = np.abs(left - right).reshape(_SMALL[1] // high, high, _SMALL[0] // wide, wide).mean((1, 3))
    return float(change.max()) > _NEW


def _without_repeats(seen: list[_Seen]) -> tuple[VideoFrame, ...]:
    """The frames; one that shows nothing new has the very pixels of the one before, which the encoder sees once."""
    kept, frames = seen[0], [seen[0].frame]
    for each in seen[1:]:
        if _differs(kept.small, each.small):
            kept = each
        frames.append(VideoFrame(each.frame.index, each.frame.time_s, kept.frame.pixels))
    return tuple(frames)
