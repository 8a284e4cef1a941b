"""Animated pictures (GIF, WebP, APNG, AVIF): how many frames they have and how long each is shown, and the frames.

Times are read from the file's own structure, pixels come from Pillow, which puts each frame together from the ones before.
A frame without a time of its own (of a GIF, with 10 ms or less) is shown for 100 ms, as browsers do. Loops count once.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.errors import SmolVLMError, VideoError
from smolvlm.media.apng import composed_frames
from smolvlm.media.labels import one_line
from smolvlm.media.limits import Limits
from smolvlm.media.opening import check_pixels, open_picture, upright
from smolvlm.media.sources import Source
from smolvlm.media.transparency import flatten

logger = logging.getLogger(__name__)

_MAX_FRAMES = 1_000_000
_GIF_LEAST_MS, _DEFAULT_MS = 10, 100
AVIF_SEQUENCE = b"avis"


def animated_format(source: Source) -> str | None:
    """One of "GIF", "WEBP", "PNG" or "AVIF" of a file with more than one frame, else None. Reads no further than it must."""
    head = source.head(64)
    if head[4:8] == b"ftyp":
        brands = {head[8:12], *(head[i : i + 4] for i in range(16, len(head) - 3, 4))}
        return "AVIF" if AVIF_SEQUENCE in brands else None
    for format, delays in (("GIF", _gif_delays), ("WEBP", _webp_delays), ("PNG", _png_delays)):
        with source.open() as stream:
            found = delays(stream)
            if next(found, None) is not None:
                return format if next(found, None) is not None else None
    return None


class AnimationReader:
    """One animated picture, opened. A context manager; not for several threads at once.

    `ends_early`: its end is missing, and nothing says how many frames there were. `is_joined`: another one follows.
    Raises VideoError for one whose frames are beyond the limits or that cannot be opened.
    """

    def __init__(self, source: Source, limits: Limits, delays_ms: list[int] | None = None) -> None:
        """`delays_ms`: how long each frame is shown, from another reader of the same source."""
        self.source = source
        self.decoded_frames = 0
        self.ends_early = self.is_joined = False
        self._format = animated_format(source) or ""
        self._stream = source.open()
        try:
            self._image = self._opened()
            check_pixels(source.label, self._image.size, limits.max_video_pixels)
            self.delays_ms = self._delays() if delays_ms is None else delays_ms
        except SmolVLMError as error:
            self.close()
            raise VideoError(str(error)) from None
        except Exception as error:
            self.close()
            raise VideoError(
                f"{source.label}: the animation is damaged or cut off ({one_line(error)}); copy or download it again."
            ) from None

    def _opened(self) -> Image.Image:
        try:
            return open_picture(self._stream, self.source.label)
        except SmolVLMError:  # its first bytes are an animation's
            raise VideoError(
                f"{self.source.label}: the animation ({self._format}) is damaged or cut off; copy or download it again."
            ) from None

    @property
    def size(self) -> tuple[int, int]:
        return self._image.size

    @property
    def stated_frames(self) -> int:
        """How many frames there should be: of a PNG by its header, else as many as were found."""
        found = len(self.delays_ms)
        if self._format != "PNG":
            return found
        with self.source.open() as stream:
            return min(max(next(_png_counts(stream), found), found), _MAX_FRAMES)

    def frames_there(self) -> int:
        """How many frames can really be decoded."""
        return sum(1 for _ in self.frames(range(len(self.delays_ms))))

    @property
    def codec(self) -> str:
        return {"PNG": "apng"}.get(self._format, self._format.lower())

    @property
    def seconds(self) -> npt.NDArray[np.float64]:
        """(frames,) when each frame begins."""
        begins: npt.NDArray[np.float64] = np.cumsum([0, *self.delays_ms[:-1]]) / 1000.0
        return begins

    @property
    def duration_s(self) -> float:
        return sum(self.delays_ms) / 1000.0

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> AnimationReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def frames(self, wanted: Sequence[int], background: str | None = None) -> Iterator[tuple[int, npt.NDArray[np.uint8]]]:
        """(i, uint8 (height, width, 3)) of the ascending frame numbers `wanted`, upright; ends where the file does.

        Transparent parts lie over `background`, white if None.
        """
        found = self._by_chunks(wanted) if self._format == "PNG" else self._by_pillow(wanted)
        try:
            for i, image in found:
                rgb = flatten(image, background or "white", from_file=False, on_warning=_ignore)
                yield i, np.asarray(upright(self._image, rgb))
        except Exception as error:  # cut off or damaged: the caller counts what came
            logger.debug("%s: %s", self.source.label, one_line(error))

    def _by_pillow(self, wanted: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        for i in wanted:
            self._image.seek(i)
            self._image.load()
            self.decoded_frames += 1
            yield i, self._image

    def _by_chunks(self, wanted: Sequence[int]) -> Iterator[tuple[int, Image.Image]]:
        with self.source.open() as stream:
            for i, image in enumerate(composed_frames(stream, self.source.label)):
                self.decoded_frames += 1
                if i in wanted:
                    yield i, image
                if i >= wanted[-1]:
                    return

    def _delays(self) -> list[int]:
        if self._format == "AVIF":
            return [_shown(ms) for ms in self._decoded_delays()]
        read = {"GIF": _gif_delays, "WEBP": _webp_delays, "PNG": _png_delays}[self._format]
        least_ms = _GIF_LEAST_MS if self._format == "GIF" else 0
        with self.source.open() as stream:
            delays = [_shown(ms, least_ms) for _, ms in zip(range(_MAX_FRAMES), read(stream), strict=False)]
            stream.seek(-1, 1)
            self.ends_early = self._format == "GIF" and stream.read(1) != b";"  # its trailer is where reading ended
            self.is_joined = self._format == "GIF" and not self.ends_early and stream.read(4) == b"GIF8"
            return delays

    def _decoded_delays(self) -> Iterator[int]:
        """AVIF keeps its times in the tables of a video track, which Pillow reads with the frames."""
        for i in range(min(int(getattr(self._image, "n_frames", 1)), _MAX_FRAMES)):
            self._image.seek(i)
            self._image.load()
            yield int(self._image.info.get("duration", 0))
        self._image.seek(0)


def _shown(delay_ms: int, least_ms: int = 0) -> int:
    """Milliseconds that a frame with this delay is shown for."""
    return delay_ms if delay_ms > least_ms else _DEFAULT_MS


def _ignore(_: str) -> None:
    """Each frame of an animation may be transparent; nothing is hidden by that."""


def _gif_delays(stream: BinaryIO) -> Iterator[int]:
    """Milliseconds of each frame: GIF89a, section 23 (delay time in hundredths of a second)."""
    head = stream.read(13)
    if head[:6] not in (b"GIF87a", b"GIF89a") or len(head) < 13:
        return
    stream.seek(_color_table(head[10]), 1)
    delay = 0
    while kind := stream.read(1):
        if kind == b"!":
            if stream.read(1) == b"\xf9" and len(body := stream.read(6)) == 6:
                delay = struct.unpack("<H", body[2:4])[0] * 10
                stream.seek(-1, 1)  # its terminator ends the sub-blocks below
        elif kind == b",":
            descriptor = stream.read(9)
            if len(descriptor) < 9:
                return
            yield delay
            delay = 0
            stream.seek(_color_table(descriptor[8]) + 1, 1)
        elif kind == b";":
            return
        while (size := stream.read(1)) and size[0]:
            stream.seek(size[0], 1)


def _color_table(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _webp_delays(stream: BinaryIO) -> Iterator[int]:
    """Milliseconds of each frame: the ANMF chunks of RFC 9649."""
    head = stream.read(12)
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP":
        return
    while len(chunk := stream.read(8)) == 8:
        size = struct.unpack("<I", chunk[4:])[0]
        if chunk[:4] == b"ANMF":
            body = stream.read(min(size, 16))
            if len(body) < 16:
                return
            yield int.from_bytes(body[12:15], "little")
            size -= 16
        stream.seek(size + (size & 1), 1)


def _png_counts(stream: BinaryIO) -> Iterator[int]:
    """The number of frames by the acTL chunk, which stands before the first picture."""
    stream.seek(8)
    while len(chunk := stream.read(8)) == 8 and chunk[4:] not in (b"IDAT", b"IEND"):
        if chunk[4:] == b"acTL" and len(count := stream.read(4)) == 4:
            yield int.from_bytes(count, "big")
        stream.seek(struct.unpack(">I", chunk[:4])[0] + 4, 1)


def _png_delays(stream: BinaryIO) -> Iterator[int]:
    """Milliseconds of each frame: the fcTL chunks of PNG 3, section 11.3.6.2."""
    if stream.read(8) != b"\x89PNG\r\n\x1a\n":
        return
    animated = False
    while len(chunk := stream.read(8)) == 8 and chunk[4:] != b"IEND":
        size = struct.unpack(">I", chunk[:4])[0]
        if chunk[4:] == b"IDAT" and not animated:
            return  # acTL stands before the first picture
        animated = animated or chunk[4:] == b"acTL"
        if chunk[4:] == b"fcTL" and animated:
            body = stream.read(min(size, 24))
            if len(body) < 24:
                return
            count, per = struct.unpack(">HH", body[20:24])
            yield round(1000 * count / (per or 100))
            size -= 24
        stream.seek(size + 4, 1)
