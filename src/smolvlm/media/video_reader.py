"""Single frames of a video file by seeking: each asked frame costs at most its own group of pictures.

Frames come out exactly as decoding the whole file would number them. Where a file's timestamps do not allow that to be
known, the reader says so (`SeekMismatch`) and the caller reads from the start instead: slower, never wrong.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import av
import numpy as np

from smolvlm.errors import SmolVLMError, VideoError
from smolvlm.media.container import StreamInfo, open_container, stream_infos
from smolvlm.media.file_end import Early, ends_early
from smolvlm.media.labels import one_line
from smolvlm.media.limits import Limits
from smolvlm.media.riff import complete_avi_bytes
from smolvlm.media.sources import Source
from smolvlm.media.tiling import MAX_EDGE_PX
from smolvlm.media.tone_map import ColorTags
from smolvlm.media.video_index import FrameIndex, build_index
from smolvlm.media.video_pixels import Matrix, Pixels, display_matrix, frame_tags, rgb_pixels, shrunk_frame
from smolvlm.media.video_stream import main_video_stream, stated_duration_s

logger = logging.getLogger(__name__)

# Frame threads decode a group 1.5 times as fast on two cores (H.264 1080p: 359 against 244 frames a second); draining
# after each group keeps them from reading ahead. Only where they are safe: libav's VP9 (8.1) crashes the process on a
# file that calls a predicted frame a key, after a flush; and the other decoders are rarer than the risk is worth.
_FRAME_THREADED = {"h264", "hevc"}
_SKIP_PACKETS = 64  # reading on over this many packets is cheaper than a seek


class SeekMismatch(Exception):
    """The decoder gave other frames than the timestamps promised; frames must be counted from the start.

    A signal inside this room, never seen by users.
    """


class VideoReader:
    """One open video file and the video stream that a player would show. A context manager; not for several threads at once.

    `decoded_frames` counts every frame that the decoder gave, also those nobody asked for.
    Raises VideoError for what is not a video, has no video stream, or has frames beyond the limits.
    """

    def __init__(self, source: Source, limits: Limits) -> None:
        self.source = source
        self.limits = limits
        self.decoded_frames = 0
        self._matrices: dict[int, Matrix] = {}  # by the frames' rotation
        self._open()

    def _open(self) -> None:
        label = self.source.label
        self._container = open_container(self.source, self.limits)
        try:
            self._stream = main_video_stream(self._container, label)
            self._check_size(self._stream.codec_context.width, self._stream.codec_context.height)
            for other in self._container.streams:
                if other.index != self._stream.index:
                    other.discard = av.stream.Discard.all
            context = self._stream.codec_context
            context.thread_type = "AUTO" if context.name in _FRAME_THREADED else "SLICE"
            self._packets: Iterator[Any] | None = None
            self._next = 0
        except SmolVLMError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise VideoError(f"{label}: its video stream cannot be decoded ({one_line(error)}); re-encode it.") from None

    def close(self) -> None:
        self._packets = None
        self._container.close()

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def header_frames(self) -> int:
        """Frames by the container's header, 0 where it does not say (Matroska, MPEG-TS)."""
        return max(int(self._stream.frames), 0)

    @property
    def average_rate(self) -> float:
        """Frames a second by the container, 0.0 where it does not say."""
        rate = self._stream.average_rate
        return float(rate) if rate else 0.0

    @property
    def stated_duration_s(self) -> float | None:
        """Seconds by the container, None where it does not say; they may count from before the first frame."""
        return stated_duration_s(self._container, self._stream)

    @property
    def whole_duration_s(self) -> float | None:
        """Like `stated_duration_s`, or the length that the header states for all streams together."""
        whole = self._container.duration
        return self.stated_duration_s or (whole / 1_000_000 if whole is not None and whole > 0 else None)

    @property
    def ends_early(self) -> Early | None:
        """How the file ends before its structure does; None for one that is whole."""
        return ends_early(self.source)

    @property
    def most_empty_slots(self) -> int:
        """How many of `header_frames` may be slots without a frame: AVI counts those too, at 8 bytes each at least."""
        if self._container.format.name != "avi":
            return 0
        return complete_avi_bytes(self.source) // 8

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels as stored, before rotation."""
        return self._stream.codec_context.width, self._stream.codec_context.height

    @property
    def codec(self) -> str:
        return str(self._stream.codec_context.name)

    @property
    def streams(self) -> tuple[StreamInfo, ...]:
        """All streams of the file."""
        return stream_infos(self._container)

    def build_index(self) -> FrameIndex:
        """All packets' timestamps, with leading frames that cannot be decoded already left out."""
        index = build_index(self._container.demux(self._stream), self._stream.time_base)
        if not index.num_frames:
            raise VideoError(f"{self.source.label}: the video stream holds no frame; it is cut off or damaged. Copy or download it again.")
        if index.has_timestamps and not index.starts_cleanly():
            first = next(self._all_frames(), None)
            if first is not None and first.pts is not None:
                index = index.starting_at(first.pts)
        return index

    def frames_by_seeking(self, index: FrameIndex, wanted: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """Yield (i, av.VideoFrame) for the ascending frame numbers `wanted`, group of pictures by group.

        Raises SeekMismatch as soon as the decoder contradicts the index. The frames yielded before have their own times; their
        numbers are wrong where frames before them are missing, too.
        """
        groups: dict[int, dict[int, int]] = {}
        for i in wanted:
            pts = int(index.frame_pts[i])
            groups.setdefault(index.key_before(pts), {})[pts] = i
        if -1 in groups:
            raise SeekMismatch
        for key, targets in groups.items():
            try:
                yield from self._decode_group(index, key, targets)
            except (av.FFmpegError, EOFError, ValueError) as error:
                raise SeekMismatch(one_line(error)) from None

    def _decode_group(self, index: FrameIndex, key: int, targets: dict[int, int]) -> Iterator[tuple[int, Any]]:
        last = max(index.position(pts) for pts in targets)
        self._go_to(index, key)
        reached_end = False
        try:
            yield from self._decoded(index, key, targets, last)
            reached_end = True
        finally:  # also where nobody wants the rest: the next group finds a decoder that holds nothing
            self._stream.codec_context.flush_buffers()
            self._next = last + 1
            if not reached_end:
                self._packets = None

    def _decoded(self, index: FrameIndex, key: int, targets: dict[int, int], last: int) -> Iterator[tuple[int, Any]]:
        context = self._stream.codec_context
        key_pts = int(index.packet_pts[key])
        sent = slice(key, last + 1)
        due = np.sort(index.packet_pts[sent][~index.packet_is_discarded[sent] & (index.packet_pts[sent] >= key_pts)])
        given = 0
        assert self._packets is not None, "_go_to leaves an iterator"
        # Packets up to the last target's, then a drain: the decoder gives up what it holds without reading further.
        for n in range(key, last + 2):
            packet = next(self._packets) if n <= last else None
            if packet is not None and index.position(packet.pts) != n:
                raise SeekMismatch
            for frame in context.decode(packet):
                self.decoded_frames += 1
                if frame.pts is not None and frame.pts < key_pts:
                    continue  # leading frames of an open group, shown with the group before
                if given == len(due) or frame.pts != due[given]:
                    raise SeekMismatch  # a packet before gave no frame, or this one should not have
                given += 1
                if frame.pts in targets:
                    yield targets[frame.pts], frame
        if given < len(due):
            raise SeekMismatch

    def _go_to(self, index: FrameIndex, key: int) -> None:
        """Make packet number `key` the next one to be read."""
        if self._packets is not None and 0 <= key - self._next <= _SKIP_PACKETS:
            for _ in range(key - self._next):
                next(self._packets, None)
            return
        earlier = [int(k) for k in np.flatnonzero(index.packet_is_key[: key + 1])[::-1][:4]]
        for ticks in [index.seek_ticks(k) for k in earlier] + [int(index.packet_pts.min())]:
            self._container.seek(ticks, stream=self._stream, backward=True)
            packets = self._container.demux(self._stream)
            for packet in packets:
                found = index.position(packet.pts) if packet.size else key + 1
                if found > key:
                    break  # landed too late: try an earlier key
                if found == key:
                    self._packets = _chain(packet, packets)
                    return
        raise SeekMismatch

    def frames_from_start(self, count: int | None = None) -> Iterator[tuple[int, Any]]:
        """Yield (i, av.VideoFrame) of the first `count` frames, or of all; damaged packets are logged and left out."""
        yield from enumerate(islice(self._all_frames(), count))

    def frame_times(self) -> list[float | None]:
        """Seconds of every frame that decoding gives, by the container's clock; None where it names none."""
        frames = self._all_frames()  # opens the file anew; frames of the final drain carry no time base of their own
        return [None if f.pts is None else float(f.pts * self._stream.time_base) for f in frames]

    def _all_frames(self) -> Iterator[Any]:
        self.close()
        self._open()
        damaged = 0
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    break
                frames = self._stream.codec_context.decode(packet if packet.size else None)
            except (av.FFmpegError, ValueError) as error:
                damaged += 1
                if isinstance(error, EOFError) or packet is None or damaged > 1000:
                    break
                continue
            self.decoded_frames += len(frames)
            yield from frames
        if damaged:
            logger.warning("%s: %d damaged packets were left out", self.source.label, damaged)

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.limits.max_video_pixels:
            raise VideoError(
                f"{self.source.label}: its frames are {width} x {height} pixels, more than the limit of "
                f"{self.limits.max_video_pixels}; scale it down first."
            )

    def tags(self, frame: Any) -> ColorTags:
        """How the frame's colors are coded."""
        return frame_tags(frame, self._stream.codec_context)

    def rgb(
        self, frame: Any, tags: ColorTags | None = None, longest_edge_px: int = MAX_EDGE_PX, *, shrink_to_px: int | None = None
    ) -> Pixels:
        """The frame upright as uint8 (height, width, 3): as the reference converts it, or mapped to sRGB by `tags`.

        `shrink_to_px` gives a smaller picture at once, which costs less and is not the reference's conversion.
        """
        self._check_size(frame.width, frame.height)
        if shrink_to_px is not None and max(frame.width, frame.height) > shrink_to_px:
            return shrunk_frame(frame, self.matrix(frame), shrink_to_px)
        return rgb_pixels(frame, self.matrix(frame), tags, longest_edge_px)

    def matrix(self, frame: Any) -> Matrix:
        """How the frame is turned for display."""
        # Asking for a frame's side data makes PyAV (18) hold the frame until Python's garbage collection: ask once.
        if frame.rotation not in self._matrices:
            self._matrices[frame.rotation] = display_matrix(frame)
        return self._matrices[frame.rotation]


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
