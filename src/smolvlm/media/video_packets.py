"""The packets of a span, for tools that cut without decoding; and its sound, decoded in blocks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from smolvlm.errors import ParamsError, VideoError
from smolvlm.media.container import open_container
from smolvlm.media.limits import Limits
from smolvlm.media.sources import Source
from smolvlm.media.timeline import Timeline
from smolvlm.media.video_file import damage_named
from smolvlm.media.video_stream import main_video_stream

KINDS = ("video", "audio", "subtitle")
_EARLIER_S = 1.0  # files interleave their streams this loosely, and decoders of sound need some samples before the first
_LONG_S = 1e6  # more than a block lasts
_CHANNELS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True, eq=False)
class SoundBlock:
    """Some sound: `samples` is float32 (samples, channels), -1 to 1; `time_s` is that of the first one."""

    time_s: float
    samples: npt.NDArray[np.float32]


class PacketSpan:
    """Packets of one span, in the file's order. `streams` are PyAV's, for `add_stream_from_template`.

    The video begins with the key frame at `start_s`, at or before the asked start, and ends with what its last frame needs;
    sound and subtitles begin and end with it. Timestamps are the file's own: `origin` is where its clock stands at second 0.
    Iterate once.
    """

    def __init__(self, container: Any, streams: Sequence[Any], timeline: Timeline, span: tuple[int, int]) -> None:
        self.streams, self._label = tuple(streams), timeline.label
        self._container, self._index = container, timeline.index
        index = timeline.index
        shown = index.frame_pts[span[0] : span[1] + 1]
        self._first = index.key_before(int(shown[0]))
        self._last = max(index.position(int(pts)) for pts in shown)
        self.origin = int(index.frame_pts[0]) * index.time_base
        begin = int(index.packet_pts[max(self._first, 0)])
        self.start_s = float(begin * index.time_base - self.origin)
        self.end_s = timeline.times([span[1] + 1])[0] if span[1] + 1 < timeline.available else timeline.duration_s
        self._from_s, self._to_s = float(begin * index.time_base), float(self.origin) + self.end_s

    def __iter__(self) -> Iterator[Any]:
        with damage_named(self._label):
            yield from self._packets()

    def _packets(self) -> Iterator[Any]:
        index, video = self._index, self.streams[0]
        early = index.key_before(int(index.packet_pts[max(self._first, 0)] - _EARLIER_S / index.time_base))
        self._container.seek(index.seek_ticks(max(early, 0)), stream=video, backward=True)
        over: set[int] = set()
        for packet in self._container.demux(list(self.streams)):
            if not packet.size:
                continue
            if packet.stream.index == video.index:
                at = index.position(packet.pts)
                if at >= self._last:
                    over.add(video.index)
                if self._first <= at <= self._last:
                    yield packet
            elif (ticks := packet.pts if packet.pts is not None else packet.dts) is not None:
                begins_s = float(ticks * packet.time_base)
                if begins_s >= self._to_s:
                    over.add(packet.stream.index)
                elif begins_s + float((packet.duration or 0) * packet.time_base) > self._from_s:
                    yield packet
            if video.index in over and len(over) == len(self.streams):
                return


@contextmanager
def packet_span(source: Source, limits: Limits, timeline: Timeline, span: tuple[int, int], kinds: Sequence[str]) -> Iterator[PacketSpan]:
    """The packets of the frames `span[0]`..`span[1]`, both included, and of the other streams beside them."""
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise ParamsError(f"kinds has {unknown[0]!r}; expected some of {', '.join(KINDS)}.")
    if not kinds:
        raise ParamsError(f"kinds is empty; expected some of {', '.join(KINDS)}.")
    if not timeline.index.has_timestamps:
        raise VideoError(f"{source.label}: its packets have no usable timestamps, so that it cannot be cut by them; remux it to MP4 first.")
    container = open_container(source, limits)
    try:
        video = main_video_stream(container, source.label)
        others = [s for s in container.streams if s.type in kinds and s.type != "video"]
        yield PacketSpan(container, [video, *others], timeline, span)
    finally:
        container.close()


def sound_of(
    source: Source, limits: Limits, timeline: Timeline, start: float, end: float, sample_rate: int, channels: int
) -> Iterator[SoundBlock]:
    """The sound within `start`..`end` seconds, exact to the sample, of a file that has some."""
    origin_s = timeline.index.first_s
    container = open_container(source, limits)
    try:
        stream = max(container.streams.audio, key=lambda s: bool(int(s.disposition) & int(av.stream.Disposition.default)))
        resampler = av.AudioResampler("flt", _CHANNELS[channels], sample_rate)
        early_s = start + origin_s - _EARLIER_S
        if stream.time_base and early_s > 0:
            container.seek(int(Fraction(early_s) / stream.time_base), stream=stream, backward=True)
        for frame in _sound_frames(source.label, container, stream, resampler):
            time_s = float(frame.pts * frame.time_base) - origin_s
            if time_s >= end:
                return
            samples = frame.to_ndarray().reshape(-1, channels)
            first, last = (round(min(at - time_s, _LONG_S) * sample_rate) for at in (start, end))
            if last > 0 and first < len(samples):
                kept = samples[max(first, 0) : last]
                yield SoundBlock(time_s + max(first, 0) / sample_rate, kept)
    finally:
        container.close()


def _sound_frames(label: str, container: Any, stream: Any, resampler: Any) -> Iterator[Any]:
    """Resampled frames that know their time; damaged packets are left out."""
    with damage_named(label):
        yield from _decoded_sound(container, stream, resampler)


def _decoded_sound(container: Any, stream: Any, resampler: Any) -> Iterator[Any]:
    damaged = 0
    for packet in container.demux(stream):
        try:
            frames = [small for frame in packet.decode() if frame.pts is not None for small in resampler.resample(frame)]
        except (av.FFmpegError, ValueError):
            damaged += 1
            if damaged > 1000:
                return
            continue
        yield from frames
    yield from resampler.resample(None)
