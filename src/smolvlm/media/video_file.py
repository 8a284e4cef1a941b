"""The frames of one file: its index, read once, and decoders that are kept open between calls."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Protocol, TypeAlias

import numpy as np

from smolvlm.config import ProcessorConfig
from smolvlm.errors import SmolVLMError, VideoError
from smolvlm.media.animation import AnimationReader
from smolvlm.media.container import StreamInfo
from smolvlm.media.labels import one_line
from smolvlm.media.limits import Limits
from smolvlm.media.sampled_video import OnFrame, Pixels, SampledVideo, VideoInfo, square_frame
from smolvlm.media.sources import Source
from smolvlm.media.timeline import Timeline
from smolvlm.media.tone_map import left_as_stored
from smolvlm.media.video_pixels import IDENTITY, Matrix, shrunk
from smolvlm.media.video_reader import SeekMismatch, VideoReader
from smolvlm.options.media import MediaOptions

logger = logging.getLogger(__name__)

_MOST_IDLE = 2  # decoders that are kept open for later calls


Choose: TypeAlias = Callable[[Timeline], Sequence[int]]  # which frames, ascending


class Frames(Protocol):
    """A file whose frames are numbered and timed."""

    timeline: Timeline

    @property
    def info(self) -> VideoInfo: ...

    @property
    def matrix(self) -> Matrix: ...

    def sample(self, config: ProcessorConfig, options: MediaOptions, on_frame: OnFrame | None) -> SampledVideo: ...

    def pictures(self, choose: Choose, longest_edge_px: int | None) -> Iterator[tuple[int, float, Pixels]]: ...

    def key_frames(self) -> list[int]: ...

    def streams(self) -> tuple[StreamInfo, ...]: ...

    def close(self) -> None: ...


class VideoFile:
    """A container file. Any thread may call it: each running call has a decoder of its own.

    Raises VideoError for what is no video, is damaged, or has frames beyond the limits.
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source, self._limits = source, limits
        self._lock = threading.Lock()
        self._idle: list[VideoReader] = []
        self._process = os.getpid()
        self._by_counting = False  # the timestamps do not name the frames: only decoding from the start does
        with damage_named(source.label), self._reader() as reader:
            self.timeline = Timeline.of(reader, reader.build_index())
            self._size, self._codec = reader.size, reader.codec
        self._matrix: Matrix | None = None

    @property
    def info(self) -> VideoInfo:
        return _info(self.timeline, self._size, self._codec)

    @property
    def matrix(self) -> Matrix:
        """How the frames are turned for display, by the first of them."""
        if self._matrix is None:
            with damage_named(self._source.label), self._reader() as reader:
                first = next(reader.frames_from_start(1), None)
                self._matrix = IDENTITY if first is None else reader.matrix(first[1])
        return self._matrix

    def sample(self, config: ProcessorConfig, options: MediaOptions, on_frame: OnFrame | None) -> SampledVideo:
        with damage_named(self._source.label), self._reader() as reader:
            before = reader.decoded_frames
            collector = _Collector(reader, config, options, _shielded(on_frame))
            wanted = self.timeline.choose(config, options)
            frames: dict[int, Pixels] = {}
            if self._can_seek:
                try:
                    frames = collector.collect(reader.frames_by_seeking(self.timeline.index, wanted), wanted)
                except SeekMismatch:  # damaged packets, or hidden ones: only decoding tells which frames there are
                    frames = {}
                    wanted = self._counted(reader).choose(config, options)
            if not frames:
                frames = collector.collect(reader.frames_from_start(wanted[-1] + 1), wanted)
            if len(frames) < len(wanted):  # no timestamps, and fewer frames than packets: now they are counted
                wanted = self._counted(reader).choose(config, options)
                frames = collector.collect(reader.frames_from_start(wanted[-1] + 1), wanted)
            warnings = (*collector.warnings, *self.timeline.warnings(options, wanted))
            return _sampled(self, frames, wanted, reader.decoded_frames - before, warnings)

    def pictures(self, choose: Choose, longest_edge_px: int | None) -> Iterator[tuple[int, float, Pixels]]:
        """(i, seconds, upright pixels) of the frames that `choose(timeline)` takes, one at a time, none larger than
        `longest_edge_px`; i and the seconds are those of the timeline as it was then, whatever other calls learn of the file."""
        last, timeline = -1, self.timeline
        wanted = choose(timeline)
        with damage_named(self._source.label), self._reader() as reader:
            if self._can_seek:
                try:
                    for i, frame in reader.frames_by_seeking(timeline.index, wanted):
                        yield i, timeline.times([i])[0], reader.rgb(frame, shrink_to_px=longest_edge_px)
                        last = i
                    return
                except SeekMismatch:
                    timeline = self._counted(reader)
                    wanted = choose(timeline)
            missing = {i for i in wanted if last < i < timeline.available}
            for i, frame in reader.frames_from_start(max(missing, default=-1) + 1):
                if i in missing:
                    yield i, timeline.times([i])[0], reader.rgb(frame, shrink_to_px=longest_edge_px)

    def coded(self, first: int, stop: int) -> Iterator[tuple[int, Any]]:
        """(i, `av.VideoFrame`) of the frames `first`..`stop`, as the decoder gives them."""
        last = first - 1
        with damage_named(self._source.label), self._reader() as reader:
            if self._can_seek:
                try:
                    for i, frame in reader.frames_by_seeking(self.timeline.index, range(first, stop)):
                        yield i, frame
                        last = i
                    return
                except SeekMismatch:  # what is damaged is left out; the others are known by their times
                    logger.info("%s: frames within %d..%d are damaged", self._source.label, last + 1, stop)
            numbers = {int(pts): i for i, pts in enumerate(self.timeline.index.frame_pts[:stop]) if i > last}
            for i, frame in reader.frames_from_start():
                number = numbers.get(frame.pts, -1) if numbers else i
                if number > last:
                    yield number, frame
                if number >= stop - 1 or (numbers and frame.pts is not None and frame.pts >= max(numbers)):
                    return

    def key_frames(self) -> list[int]:
        """The numbers of the frames that can be decoded alone; the first one only where the timestamps tell of no other."""
        return self.timeline.index.key_frames() if self._can_seek else [0]

    def streams(self) -> tuple[StreamInfo, ...]:
        with damage_named(self._source.label), self._reader() as reader:
            return reader.streams

    def close(self) -> None:
        with self._lock:
            idle, self._idle = self._idle, []
        if self._process == os.getpid():
            for reader in idle:
                reader.close()

    @property
    def _can_seek(self) -> bool:
        return self.timeline.index.has_timestamps and not self._by_counting

    def _counted(self, reader: VideoReader) -> Timeline:
        """The timeline by the frames that decoding everything gives, from now on."""
        if not self._by_counting:
            logger.info("%s: its timestamps do not name its frames; decoding all of it", self._source.label)
            self.timeline = self.timeline.counted(reader.frame_times())
            self._by_counting = True
        return self.timeline

    @contextmanager
    def _reader(self) -> Iterator[VideoReader]:
        """A decoder for one call; kept open for the next one."""
        with self._lock:
            if self._process != os.getpid():
                # A forked child shares the parent's place in the file and lacks its decoding threads: closing would wait for them.
                _abandoned.extend(self._idle)
                self._idle, self._process = [], os.getpid()
            reader = self._idle.pop() if self._idle else None
        reader = reader or VideoReader(self._source, self._limits)
        try:
            yield reader
        finally:
            with self._lock:
                keep = len(self._idle) < _MOST_IDLE
                if keep:
                    self._idle.append(reader)
            if not keep:
                reader.close()


_abandoned: list[VideoReader] = []  # by forked children; see VideoFile._reader


class AnimationFile:
    """An animated picture. Each call opens it anew; its times are read once."""

    def __init__(self, source: Source, limits: Limits) -> None:
        self._source, self._limits = source, limits
        with AnimationReader(source, limits) as reader:
            self._delays_ms = reader.delays_ms
            self._size, self._codec = reader.size, reader.codec
            timeline = Timeline.of_times(source.label, reader.seconds, reader.duration_s, reader.stated_frames)
            self.timeline = replace(timeline, ends_early=reader.ends_early, is_joined=reader.is_joined)

    matrix = IDENTITY

    @property
    def info(self) -> VideoInfo:
        return _info(self.timeline, self._size, self._codec)

    def sample(self, config: ProcessorConfig, options: MediaOptions, on_frame: OnFrame | None) -> SampledVideo:
        with self._reader() as reader:
            wanted = self.timeline.choose(config, options)
            frames: dict[int, Pixels] = {}
            for i, pixels in reader.frames(wanted, options.background):
                frames[i] = square_frame(pixels, config)
                if on_frame is not None:
                    on_frame(len(frames), len(wanted))
            if len(frames) < len(wanted):
                self.timeline = replace(self.timeline, available=reader.frames_there())
                self.timeline.choose(config, options)  # says how much is there
            return _sampled(self, frames, wanted, reader.decoded_frames, self.timeline.warnings(options, wanted))

    def pictures(self, choose: Choose, longest_edge_px: int | None) -> Iterator[tuple[int, float, Pixels]]:
        with self._reader() as reader:
            for i, pixels in reader.frames(choose(self.timeline)):
                yield i, self.timeline.times([i])[0], pixels if longest_edge_px is None else shrunk(pixels, longest_edge_px)

    def key_frames(self) -> list[int]:
        return [0]  # each frame is put together from the ones before

    def streams(self) -> tuple[StreamInfo, ...]:
        return ()

    def close(self) -> None:
        """Nothing is open between calls."""

    def _reader(self) -> AnimationReader:
        return AnimationReader(self._source, self._limits, self._delays_ms)


class _Collector:
    """Shrinks the wanted frames as they come, and keeps in mind what their colors are."""

    def __init__(self, reader: VideoReader, config: ProcessorConfig, options: MediaOptions, on_frame: OnFrame | None) -> None:
        self._reader, self._config, self._on_frame = reader, config, on_frame
        self._maps = options.tone_map == "auto"
        self.warnings: list[str] = []

    def collect(self, found: Iterator[tuple[int, Any]], wanted: Sequence[int]) -> dict[int, Pixels]:
        """The square frames by number; one that never came is not there."""
        missing = set(wanted)
        frames: dict[int, Pixels] = {}
        for i, frame in found:
            if i not in missing:
                continue
            tags = self._reader.tags(frame)
            if tags.name is not None and not self._maps and not self.warnings:
                self.warnings.append(left_as_stored(tags))
            pixels = self._reader.rgb(frame, tags if self._maps else None, self._config.video_longest_edge)
            frames[i] = square_frame(pixels, self._config)
            missing.remove(i)
            if self._on_frame is not None:
                self._on_frame(len(frames), len(wanted))
        return frames


class _CallerError(Exception):
    """What a callback of the caller's raised, on its way past `damage_named`."""


def _shielded(on_frame: OnFrame | None) -> OnFrame | None:
    """The callback, whose exceptions are the caller's own and say nothing of the file."""
    if on_frame is None:
        return None

    def told(done: int, total: int) -> None:
        try:
            on_frame(done, total)
        except Exception as error:
            raise _CallerError(error) from None

    return told


@contextmanager
def damage_named(label: str) -> Iterator[None]:
    """Whatever libav and PyAV raise on hostile files, as one VideoError."""
    try:
        yield
    except _CallerError as error:
        raise error.args[0] from None
    except (SmolVLMError, SeekMismatch):
        raise
    except Exception as error:
        logger.debug("%s: reading failed", label, exc_info=True)
        raise VideoError(f"{label}: the video is damaged ({one_line(error)}); re-encode or download it again.") from None


def _info(timeline: Timeline, size: tuple[int, int], codec: str) -> VideoInfo:
    return VideoInfo(timeline.total_num_frames, timeline.fps, timeline.duration_s, *size, codec, timeline.variable)


def _sampled(file: Frames, frames: dict[int, Pixels], wanted: Sequence[int], decoded: int, warnings: Sequence[str]) -> SampledVideo:
    timeline = file.timeline
    stacked = np.stack([frames[i] for i in wanted])
    return SampledVideo(stacked, timeline.times(wanted), timeline.duration_s, tuple(wanted), file.info, decoded, tuple(warnings))
