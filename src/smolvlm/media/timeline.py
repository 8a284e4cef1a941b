"""When each frame of a video is shown, how long the video is, and which frames are sampled from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from smolvlm.config import ProcessorConfig
from smolvlm.errors import VideoError
from smolvlm.media.options import MediaOptions
from smolvlm.media.sampling import sample_frame_indices, sample_span_indices
from smolvlm.media.video_index import FrameIndex, build_index
from smolvlm.media.video_reader import VideoReader

_UNKNOWN_RATE = 24.0  # what the reference assumes where nothing is known
_MAX_DURATION_S = 1e8  # three years: beyond it a header lies
_TOLERATED_SHORTAGE = 2  # empty packets that some writers count


@dataclass(frozen=True, eq=False)
class Timeline:
    """Frames and times of one video file.

    total_num_frames: by the header, as the reference has it, or counted where it says nothing
    available: frames that the file really holds; fewer than the total when it is cut off
    fps: the average rate
    duration_s: of the whole video, also where frames of it are damaged
    seconds: (available,) real times of the frames from the first one, or empty where the timestamps are unusable
    variable: some frame is half a frame or more away from `index / fps`
    """

    label: str
    index: FrameIndex
    total_num_frames: int
    available: int
    fps: float
    duration_s: float
    seconds: npt.NDArray[np.float64]
    variable: bool

    @classmethod
    def of(cls, reader: VideoReader, index: FrameIndex) -> Timeline:
        """Raises VideoError when the container's times make no sense."""
        seconds = index.frame_seconds()
        available = index.num_frames
        shortage = reader.header_frames - len(index.packet_pts)
        total = available + (shortage if shortage > _TOLERATED_SHORTAGE else 0)
        fps = _rate(reader, seconds)
        if not 0 < total / fps <= _MAX_DURATION_S:
            raise VideoError(f"{reader.source.label}: its header claims {total} frames at {fps:g} a second, "
                             "which cannot be; re-encode it.")  # fmt: skip
        return cls(reader.source.label, index, total, available, fps, total / fps, seconds, _varies(seconds, fps))

    @classmethod
    def of_times(cls, label: str, seconds: npt.NDArray[np.float64], duration_s: float) -> Timeline:
        """Frames whose times are known, from a source that has no packets. `duration_s` is above 0."""
        count, nothing = len(seconds), build_index((), Fraction(1, 1000), 0)
        return cls(label, nothing, count, count, count / duration_s, duration_s, seconds, _varies(seconds, count / duration_s))

    def counted(self, times: Sequence[float | None]) -> Timeline:
        """The same video by the frames that decoding it gave, with their times; the packets' word was wrong.

        The times are kept where the file has them: after damage, frame 50 is no longer at 50 / fps.
        """
        if not times:
            raise VideoError(f"{self.label}: no frame of it can be decoded; it is damaged. Copy or download it again.")
        known = np.array([t for t in times if t is not None])
        usable = len(known) == len(times) and bool((np.diff(known) > 0).all())
        seconds = known - known[0] if usable else np.empty(0)
        total = self.total_num_frames if self.total_num_frames > self.available else len(times)
        return replace(self, total_num_frames=total, available=len(times), seconds=seconds,
                       duration_s=self.duration_s if usable else total / self.fps,
                       variable=_varies(seconds, self.fps))  # fmt: skip

    def times(self, indices: Sequence[int]) -> tuple[float, ...]:
        """Seconds from the first frame: `index / fps` as in the reference, the real time where the rate varies."""
        if self.variable:
            return tuple(float(self.seconds[i]) for i in indices)
        return tuple(i / self.fps for i in indices)

    def choose(self, config: ProcessorConfig, options: MediaOptions) -> list[int]:
        """The sampled frames' numbers, ascending. Raises VideoError for an empty span or one that is cut off."""
        sample_fps, max_frames = options.fps or config.fps, options.max_frames or config.max_frames
        if options.start is None and options.end is None:
            chosen = sample_frame_indices(self.total_num_frames, self.fps, self.duration_s,
                                          sample_fps=sample_fps, max_frames=max_frames)  # fmt: skip
        else:
            start, end = options.start or 0.0, min(options.end or math.inf, self.duration_s)
            if options.end == 0:
                end = 0.0
            first, last = self._span(start, end)
            chosen = sample_span_indices(first, last, end - start, sample_fps=sample_fps, max_frames=max_frames)
        if chosen[-1] >= self.available:
            there = self.available / self.fps
            raise VideoError(f"{self.label} is cut off: it holds {self.available} of {self.total_num_frames} frames. "
                             "Copy or download it again, or pass "
                             f"end={math.floor(there * 10) / 10:g} to use what is there.")  # fmt: skip
        return chosen

    def _span(self, start: float, end: float) -> tuple[int, int]:
        """First and last frame shown within `start`..`end` seconds, both included."""
        slack = 1e-6  # 0.1 * 3 is not 0.3; no frame is shorter than this
        if self.variable:
            first = int(np.searchsorted(self.seconds, start - slack))
            last = int(np.searchsorted(self.seconds, end + slack, side="right")) - 1
        else:
            first = math.ceil((start - slack) * self.fps)
            last = min(math.floor((end + slack) * self.fps), self.total_num_frames - 1)
        if start >= self.duration_s or first >= self.total_num_frames:
            raise VideoError(f"{self.label}: start={start:g} is past its end; it lasts {self.duration_s:.2f} s.")
        if last < first:
            raise VideoError(f"{self.label}: no frame is shown between {start:g} and {end:g} s; widen the span to at "
                             f"least {1 / self.fps:.3f} s.")  # fmt: skip
        return first, last


def _varies(seconds: npt.NDArray[np.float64], fps: float) -> bool:
    """Whether some frame is half a frame or more away from `index / fps`."""
    return len(seconds) > 1 and bool((np.abs(seconds - np.arange(len(seconds)) / fps) >= 0.5 / fps).any())


def _rate(reader: VideoReader, seconds: npt.NDArray[np.float64]) -> float:
    """Frames a second: the container's average, unless it has no frame count of its own and the timestamps disagree."""
    average = reader.average_rate
    measured = (len(seconds) - 1) / float(seconds[-1]) if len(seconds) > 1 and seconds[-1] > 0 else 0.0
    if average > 0 and (reader.header_frames or not measured or abs(average / measured - 1) < 0.01):
        return average
    return measured or average or _UNKNOWN_RATE
