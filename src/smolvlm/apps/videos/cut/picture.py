"""The picture of a cut: packets copied or encoded, with times that run on across the seams."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
import numpy.typing as npt

from smolvlm.apps.videos.cut.bitstream import h264_ids, joined_header, length_size, packed, parameter_sets, stands_alone
from smolvlm.apps.videos.cut.encoder import UNKNOWN_COLORS, Coding
from smolvlm.apps.videos.cut.plan import PlannedPiece, Planner, Run, check_order
from smolvlm.errors import VideoError
from smolvlm.media import Video

_COARSE = Fraction(1, 2000)
COPIED = ("h264", "hevc", "vp9")  # the others are encoded as H.264


class Picture:
    """The video stream of `video`, to be cut. `close` closes its file."""

    def __init__(self, video: Video) -> None:
        self._video, self._index = video, video.index
        if not self._index.has_timestamps:
            raise VideoError(f"{video.label}: its frames have no usable times to cut by; remux or convert it to MP4 first.")
        self.container = video.container()
        self.stream = next(s for s in self.container.streams.video if s.index == _index_of(video))
        context = self.stream.codec_context
        self.codec = str(context.name)
        self._size = length_size(context.extradata, self.codec)
        end = int(self._index.frame_pts[0]) + round(video.duration_s / self._index.time_base)
        self._planner = Planner(self._index, end, self._stands_alone, self._unsafe())
        self.time_base, self._times = self._exact_times()

    def close(self) -> None:
        self.container.close()

    def plan(self, pieces: Sequence[Any]) -> list[PlannedPiece]:
        return [self._planner.plan(piece) for piece in pieces]

    def length_s(self, piece: PlannedPiece) -> Fraction:
        return int(self._times[piece.stop] - self._times[piece.first]) * self.time_base

    def start_s(self, piece: PlannedPiece) -> Fraction:
        """Seconds from the video's first frame."""
        return int(self._times[piece.first]) * self.time_base

    @property
    def origin_s(self) -> Fraction:
        """Where the container's clock stands at the first frame."""
        return Fraction(int(self._planner.ticks[0])) * self._index.time_base

    def _exact_times(self) -> tuple[Fraction, npt.NDArray[np.int64]]:
        """A time base, and (frames + 1,) when each frame is shown and the last one ends, from 0.

        Matroska's milliseconds round the times of a constant rate: they are put back to what they were rounded from.
        """
        index, ticks = self._index, self._planner.ticks - self._planner.ticks[0]
        rate = self.stream.average_rate
        if rate and index.time_base > _COARSE:
            exact = np.arange(len(ticks), dtype=np.int64) * rate.denominator
            if float(np.abs(exact / rate.numerator - ticks * float(index.time_base))[:-1].max()) < float(index.time_base):
                return Fraction(1, rate.numerator), exact
        return index.time_base, ticks

    def _unsafe(self) -> str:
        """Why no packet of this stream may be copied."""
        if self.codec not in COPIED:
            return f"{self.codec} is encoded as H.264"
        format = self.stream.codec_context.format
        if format is not None and any(component.bits > 8 for component in format.components):
            return f"{self.codec} with more than 8 bits is not joined safely"
        return check_order(self._index)

    def _stands_alone(self, position: int) -> bool:
        if self.codec == "vp9":
            return True  # a key frame of VP9 always resets everything
        for _, packet in self._packets_at(position, position + 1):
            return stands_alone(bytes(packet), self._size, self.codec)
        return False

    def _packets_at(self, begin: int, end: int) -> Iterator[tuple[int, Any]]:
        """(position, packet) of the positions `begin`..`end`, in the file's order."""
        index = self._index
        self.container.seek(index.seek_ticks(begin), stream=self.stream, backward=True)
        for packet in self.container.demux(self.stream):
            at = index.position(packet.pts) if packet.size else -1
            if at >= end:
                return
            if at >= begin:
                yield at, packet
                if at == end - 1:
                    return

    def coding(self, planned: Sequence[PlannedPiece]) -> Coding:
        """How the edges are encoded: as the source, or all of it as H.264 where its own codec is not written."""
        context = self.stream.codec_context
        width, height, pix_fmt = int(context.width), int(context.height), str(context.pix_fmt)
        rate = Fraction(self.stream.average_rate or self.stream.guessed_rate or 25).limit_denominator(1001000)
        colors = (int(context.color_range), int(context.color_primaries), int(context.color_trc), int(context.colorspace))
        aspect = context.sample_aspect_ratio
        if self.codec not in COPIED:
            if pix_fmt.startswith(("rgb", "bgr", "gbr", "pal")):
                colors = UNKNOWN_COLORS
            return Coding("h264", width + width % 2, height + height % 2, "yuv420p", self.time_base, rate, colors=colors, aspect=aspect)
        copies = any(run.packets for piece in planned for run in piece.runs)
        taken = h264_ids(parameter_sets(context.extradata, "h264")) if self.codec == "h264" and copies else set()
        return Coding(
            self.codec,
            width,
            height,
            pix_fmt,
            self.time_base,
            rate,
            profile=str(context.profile or ""),
            set_id=next(i for i in range(32) if i not in taken),
            length_size=self._size if copies else 0,
            in_band=self.codec == "hevc" and copies,
            interlaced=int(context.field_order) > 1,
            colors=colors,
            aspect=aspect,
        )

    def header(self, coding: Coding) -> bytes | None:
        """The stream's header where packets are copied: of H.264 with the edges' parameter sets beside its own."""
        own = self.stream.codec_context.extradata
        if self.codec != "h264" or not own:
            return bytes(own) if own else None
        return joined_header(bytes(own), parameter_sets(bytes(coding.open().extradata or b""), "h264"))

    def packets(self, planned: Sequence[PlannedPiece], coding: Coding) -> Iterator[Any]:
        """The packets of the cut with `pts`, `dts` and `duration` in ticks of `time_base`, from 0."""
        delay, base, times = self._planner.delay_ticks(planned, self._times), 0, self._times
        after_encoding = False  # also by the tail of the piece before
        for piece in planned:
            shift = base - int(times[piece.first])
            for run in piece.runs:
                made = self._copied(run, after_encoding) if run.packets else self._encoded(run, coding)
                for count, (number, packet) in enumerate(made):
                    # The n-th packet is decoded a fixed time before the n-th picture; where damage leaves some out, by its own time.
                    at = run.first + count if run.packets else number
                    packet.pts, packet.dts = int(times[number]) + shift, int(times[at]) + shift - delay
                    packet.duration = int(times[at + 1] - times[at])
                    packet.time_base = self.time_base
                    yield packet
                after_encoding = not run.packets
            base += int(times[piece.stop] - times[piece.first])

    def _copied(self, run: Run, after_encoding: bool) -> Iterator[tuple[int, Any]]:
        """(number of the frame, packet), in the file's order."""
        assert run.packets is not None
        begin, end = run.packets
        came = 0
        for at, packet in self._packets_at(begin, end):
            came += 1
            number = int(np.searchsorted(self._index.frame_pts, packet.pts))
            if at == begin and self.codec == "hevc" and after_encoding:
                packet = self._with_sets(packet)
            yield number, packet
        if came != end - begin:
            raise VideoError(f"{self._video.label}: {end - begin - came} of its packets can no longer be read; was the file changed?")

    def _with_sets(self, packet: Any) -> Any:
        """A key packet with the source's parameter sets before it: the edge before brought its own."""
        sets = parameter_sets(self.stream.codec_context.extradata, self.codec)
        made = av.Packet(packed(sets, self._size) + bytes(packet))
        made.is_keyframe = True
        return made

    def _encoded(self, run: Run, coding: Coding) -> Iterator[tuple[int, Any]]:
        """(number of the frame, packet), in order."""
        frames = ((int(self._times[i]), frame) for i, frame in self._video.coded_frames(run.first, run.stop))
        for time, packet in coding.encode(frames):
            yield int(np.searchsorted(self._times, time)), packet


def _index_of(video: Video) -> int:
    with video.packets(0, None, kinds=("video",)) as span:
        return int(span.streams[0].index)
