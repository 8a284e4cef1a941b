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
from smolvlm.media.file_end import Early, is_joined
from smolvlm.media.mp4_boxes import is_mp4
from smolvlm.media.sampling import sample_frame_indices, sample_span_indices, sample_times
from smolvlm.media.video_index import FrameIndex, build_index
from smolvlm.media.video_reader import VideoReader
from smolvlm.options.media import MediaOptions

_UNKNOWN_RATE = 24.0  # what the reference assumes where nothing is known
_MAX_DURATION_S = 1e8  # three years: beyond it a header lies
_REORDERING_S = 1.0  # the first frame comes this much after a header's zero at most
_MOMENT_S = 0.25  # in less, what a camera films hardly changes
_TOLERATED_SHORTAGE = 2  # empty packets that some writers count


@dataclass(frozen=True, eq=False)
class Timeline:
    """Frames and times of one video file.

    total_num_frames: by the header, as the reference has it, or counted where it says nothing
    available: frames that the file really holds; fewer than the total when it is cut off
    fps: the average rate
    duration_s: of the whole video, from its first frame to the end of its last, also where frames of it are damaged
    seconds: (available,) real times of the frames from the first one, or empty where the timestamps are unusable
    variable: some frame is half a frame or more away from `index / fps`
    is_joined: the file holds a second video behind this one
    ends_early: the file stops before its own structure does, and nothing says how much is missing
    """

    label: str
    index: FrameIndex
    total_num_frames: int
    available: int
    fps: float
    duration_s: float
    seconds: npt.NDArray[np.float64]
    variable: bool
    ends_early: bool = False
    is_joined: bool = False

    @classmethod
    def of(cls, reader: VideoReader, index: FrameIndex) -> Timeline:
        """Raises VideoError when the container's times make no sense."""
        seconds = index.frame_seconds()
        available = index.num_frames
        shortage = reader.header_frames - len(index.packet_pts) - index.empty_packets
        cut_off = shortage > max(_TOLERATED_SHORTAGE, reader.most_empty_slots)
        total = available + shortage if cut_off else available
        fps = _rate(reader, seconds)
        early = None if cut_off else _early(reader, index)
        whole_s = _whole_s(reader, early, index, seconds, fps)
        if whole_s is not None:
            cut_off, total = True, max(round(whole_s * fps), available + 1)
        if not 0 < total / fps <= _MAX_DURATION_S:
            raise VideoError(f"{reader.source.label}: its header claims {total} frames at {fps:g} a second, which cannot be; re-encode it.")
        duration_s = whole_s if whole_s is not None else _length(reader, index, total, fps, cut_off)
        if abs(duration_s * fps - total) > 0.5:  # an average that the frames contradict
            fps = total / duration_s
        return cls(
            reader.source.label,
            index,
            total,
            available,
            fps,
            duration_s,
            seconds,
            _varies(seconds, fps),
            ends_early=early is not None and not cut_off,
            is_joined=is_joined(reader.source),
        )

    @classmethod
    def of_times(cls, label: str, seconds: npt.NDArray[np.float64], duration_s: float, stated_frames: int = 0) -> Timeline:
        """Frames whose times are known, from a source that has no packets. `duration_s` is theirs, above 0.

        `stated_frames`: how many there should be; of those that are missing the average length is assumed.
        """
        count, nothing = len(seconds), build_index((), Fraction(1, 1000))
        fps, total = count / duration_s, max(count, stated_frames)
        return cls(label, nothing, total, count, fps, total / fps, seconds, _varies(seconds, fps))

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
        duration_s = self.duration_s if usable else total / self.fps
        if usable and seconds[-1] >= duration_s:
            duration_s = float(seconds[-1]) + 1 / self.fps
        return replace(
            self, total_num_frames=total, available=len(times), seconds=seconds, duration_s=duration_s, variable=_varies(seconds, self.fps)
        )

    def times(self, indices: Sequence[int]) -> tuple[float, ...]:
        """Seconds from the first frame: `index / fps` as in the reference, the real time where the rate varies."""
        if self.variable:
            return tuple(float(self.seconds[i]) for i in indices)
        return tuple(i / self.fps for i in indices)

    def choose(self, config: ProcessorConfig, options: MediaOptions) -> list[int]:
        """The sampled frames' numbers, ascending. Raises VideoError for an empty span or one that is cut off."""
        sample_fps, max_frames = options.fps or config.fps, options.max_frames or config.max_frames
        in_time = options.sampling == "time" and self.variable  # at a constant rate both rules are one
        if options.start is None and options.end is None:
            if not in_time:
                return self._there(
                    sample_frame_indices(self.total_num_frames, self.fps, self.duration_s, sample_fps=sample_fps, max_frames=max_frames)
                )
            length_s = self.duration_s
        else:
            start, end = self._seconds_of(options)
            length_s = end - start
        first, last = self.span(options)
        if in_time:
            return sample_times(self.seconds[first : last + 1], first, length_s, sample_fps=sample_fps, max_frames=max_frames)
        return sample_span_indices(first, last, length_s, sample_fps=sample_fps, max_frames=max_frames)

    def span(self, options: MediaOptions) -> tuple[int, int]:
        """The first and the last frame within `options.start`..`options.end`. Raises VideoError where the file lacks them."""
        first, last = self._there(self._span(*self._seconds_of(options)))
        return first, last

    def shown_at(self, options: MediaOptions, fps: float) -> list[int]:
        """The frames within `options.start`..`options.end` that are shown at `start`, `start + 1 / fps`, ..., each once."""
        start, end = self._seconds_of(options)
        first, last = self.span(options)
        seconds = self.seconds[first : last + 1] if self.variable else np.arange(first, last + 1) / self.fps
        count = min(math.floor((end - start) * fps + 1e-6) + 1, 2 * (last - first + 1) + 1)  # more moments than frames repeat
        step_s = (end - start) / (count - 1) if count < (end - start) * fps else 1 / fps
        shown = np.searchsorted(seconds, start + np.arange(count) * step_s + 1e-6, side="right") - 1
        return [first + int(i) for i in np.unique(np.maximum(shown, 0))]

    def _seconds_of(self, options: MediaOptions) -> tuple[float, float]:
        """Where the asked span begins and ends, within the video."""
        return options.start or 0.0, min(self.duration_s if options.end is None else options.end, self.duration_s)

    def warnings(self, options: MediaOptions, indices: Sequence[int]) -> list[str]:
        """What whoever asked should know of the file and of the frames that were chosen."""
        found = [*self._lonely(options, indices), *self._crowded(options, indices)]
        if self.is_joined and (options.end is None or options.end > self.duration_s):
            found.append("the file holds several videos, one behind the other; only the first was used. Join them by ffmpeg.")
        if self.ends_early and (options.end is None or options.end > self._there_s):
            found.append(f"the file ends early: it is cut off, or still being written; what is there, {self._there_s:.1f} s, was used.")
        return found

    def _lonely(self, options: MediaOptions, indices: Sequence[int]) -> list[str]:
        """Said when the rate takes a single frame of several, or the end leaves no more."""
        if options.end == 0 and options.start is None:
            return ["end=0 leaves its first frame only; leave it out to go on to the end."]
        if len(indices) != 1 or options.max_frames == 1:
            return []
        start, end = self._seconds_of(options)
        first, last = self._span(start, end)
        filmed = len(self.index.packet_pts) > 0  # an animation's frames were each made to be seen
        if last <= first or (filmed and end - start < _MOMENT_S):
            return []
        times = f"of the {last - first + 1} frames in {end - start:.2f} s only one, at {self.times(indices)[0]:.2f} s, was looked at"
        return [f"{times}; pass fps={math.ceil((last - first + 1) / (end - start) * 10) / 10:g} for all of them, or less for some."]

    def _crowded(self, options: MediaOptions, indices: Sequence[int]) -> list[str]:
        """Said when sampling by number has put most of the frames into a small part of the time."""
        if options.sampling == "time" or not self.variable or len(indices) < 4:
            return []
        times = self.seconds[list(indices)]
        spread_s = float(times[-1] - times[0])
        most = math.ceil(0.75 * len(indices))
        shortest_s = float((times[most - 1 :] - times[: len(times) - most + 1]).min())
        if shortest_s >= spread_s / 3:
            return []
        return [
            f"its frame rate varies: {most} of the {len(indices)} frames sampled lie within {shortest_s:.1f} s of "
            f'{spread_s:.1f} s; sampling="time" spreads them evenly.'
        ]

    @property
    def _there_s(self) -> float:
        """How far the frames reach that the file really holds."""
        return float(self.seconds[-1]) if self.variable else self.available / self.fps

    def _there(self, indices: list[int]) -> list[int]:
        """`indices` if the file holds them all. Raises VideoError."""
        if indices[-1] >= self.available:
            raise VideoError(
                f"{self.label} is cut off: it holds {self.available} of {self.total_num_frames} frames. "
                "Copy or download it again, or pass "
                f"end={math.floor(self._there_s * 10) / 10:g} to use what is there."
            )
        return indices

    def _span(self, start: float, end: float) -> list[int]:
        """First and last frame shown within `start`..`end` seconds, both included."""
        slack = 1e-6  # 0.1 * 3 is not 0.3; no frame is shorter than this
        if self.variable:
            first = int(np.searchsorted(self.seconds, start - slack))
            last = int(np.searchsorted(self.seconds, end + slack, side="right")) - 1
            if last == self.available - 1 and end > self._there_s:
                last = self.total_num_frames - 1  # of a file that is cut off
        else:
            first = math.ceil((start - slack) * self.fps)
            last = min(math.floor((end + slack) * self.fps), self.total_num_frames - 1)
        if start >= self.duration_s:
            raise VideoError(f"{self.label}: start={start:g} is past its end; it lasts {self.duration_s:.2f} s.")
        return [min(first, last), last]  # between two frames the first of them is still shown


def _early(reader: VideoReader, index: FrameIndex) -> Early | None:
    """How the file ends early, by its structure or else by what the demuxer met; None if it does not."""
    return reader.ends_early or (Early(True) if index.cut_off and not is_mp4(reader.source.head(12)) else None)


def _whole_s(reader: VideoReader, early: Early | None, index: FrameIndex, seconds: npt.NDArray[np.float64], fps: float) -> float | None:
    """Seconds of the whole video where the header of a file that ends early states more than its frames fill, else None."""
    stated = None if early is None or not early.promised else early.duration_s or reader.whole_duration_s
    if stated is None or not 0 < stated <= _MAX_DURATION_S:
        return None
    there = index.num_frames / fps if not len(seconds) else float(seconds[-1]) + 1 / fps
    return stated if stated > there + 1.5 / fps else None


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


def _length(reader: VideoReader, index: FrameIndex, total: int, fps: float, cut_off: bool) -> float:
    """Seconds from the first frame to the end of the last: the reference's frames / rate where it is right within a frame.

    A header counts from zero, which may be a little before the first frame (reordered frames); and an MP4's is short where
    the rate varies and frames are reordered. Packets know better, except in AVI, whose last slots may hold no frame.
    """
    seconds, stated = index.frame_seconds(), reader.stated_duration_s
    official = max(total, reader.header_frames) / fps
    if cut_off or not len(seconds):
        return official
    last = float(seconds[-1])
    frame_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else 1 / fps
    ends = index.end_s if index.end_s is not None and index.end_s > last else None
    if stated is not None and stated > last:
        early = 0.0 if ends is None else stated - ends
        reordered = min(index.first_s, _REORDERING_S) + 1e-3
        if ends is None or reader.most_empty_slots or abs(early) < frame_s or 0 < early <= reordered:
            ends = stated
    if official > last and (ends is None or (reader.header_frames and abs(official - ends) < frame_s)):
        return official
    return ends if ends is not None else last + frame_s
