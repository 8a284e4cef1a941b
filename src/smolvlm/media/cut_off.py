"""Pictures whose end is missing: read as far as they go while little is missing, refused when much is.

A copy that stopped early, or a camera that wrote no end marker, is a common accident; nine tenths of a photo answer most
questions. Half a photo would be answered about as if it were whole, so it is refused, and the message says how much is there.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageFile

from smolvlm.media.apng import SIGNATURE, chunk
from smolvlm.media.jpeg_frame import progressive_scans_cover, read_frame

MAX_MISSING = 0.1
_MAX_BYTES = 1 << 28
_END_OF_IMAGE = b"\xff\xd9"
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}

Open = Callable[[BinaryIO], Image.Image]


@dataclass(frozen=True)
class Rest:
    """What is there of a picture that is cut off. `missing` is the share of its rows that is not, 0 to 1."""

    image: Image.Image | None
    missing: float
    what: str


def read_rest(data: bytes, format: str | None, opened: Image.Image, reopen: Open) -> Rest | None:
    """The picture in `data` as far as it goes, or None where that cannot be told.

    `opened` is the picture whose loading failed; `reopen` opens another stream in the same way.
    """
    if format in ("JPEG", "MPO"):
        return _jpeg(data, opened, reopen)
    if format == "PNG":
        return _png(data, reopen)
    return _padded(data, reopen) if format in ("BMP", "DIB", "PPM", "TIFF") else None


def _jpeg(data: bytes, opened: Image.Image, reopen: Open) -> Rest | None:
    """With an end marker put behind it, a decoder fills what is missing with gray."""
    frame = read_frame(io.BytesIO(data))
    if frame is None or not isinstance(opened, ImageFile.ImageFile):
        return None
    filled = reopen(io.BytesIO(data + _END_OF_IMAGE))
    filled.load()
    if frame.coding % 8 == 2:
        if not progressive_scans_cover(data, len(frame.sampling)):
            return Rest(None, 1.0, "most of it is missing")
        return Rest(filled, 0.0, "its finest detail may be missing")
    # Blocks that are not there come out as the middle gray. The failed attempt has zeros where no row was decoded: gray
    # rows that it has are the picture's own.
    opened.tile = []  # what is there is all that there will be
    decoded = np.asarray(opened).reshape(opened.height, -1).any(axis=1)
    values = np.asarray(filled).reshape(filled.height, -1)
    absent = ~decoded & ((values >= 127) & (values <= 128)).all(axis=1)
    rows = filled.height - 1 - int(np.flatnonzero(~absent).max(initial=-1))
    above = values[filled.height - rows - 1]
    if 0 < rows < filled.height and ((above >= 127) & (above <= 128)).all():
        rows = 0  # it ends in gray: the missing rows look as they would
    return _rows(filled, rows)


def _png(data: bytes, reopen: Open) -> Rest | None:
    """The rows that can be inflated, the others zero, as a PNG that is whole."""
    header, others, packed = b"", b"", bytearray()
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + size]
        if kind == b"IHDR":
            header = body
        elif kind == b"IDAT":
            packed += body
        elif kind in (b"PLTE", b"tRNS", b"iCCP", b"gAMA", b"cICP", b"sRGB", b"eXIf") and len(body) == size:
            others += data[at : at + 12 + size]
        at += 12 + size
    if len(header) != 13:
        return None
    width, height, bits, color, _, _, interlaced = struct.unpack(">IIBBBBB", header)
    row = (width * _CHANNELS.get(color, 0) * bits + 7) // 8 + 1
    if interlaced or row < 2 or not 0 < row * height <= _MAX_BYTES:
        return None
    try:
        inflated = zlib.decompressobj().decompress(bytes(packed), row * height)
    except zlib.error:
        return None
    missing = height - len(inflated) // row
    if missing > max(height * MAX_MISSING, 1):
        return _rows(None, missing, height)
    pixels = inflated[: (height - missing) * row] + bytes(missing * row)
    whole = SIGNATURE + chunk(b"IHDR", header) + others + chunk(b"IDAT", zlib.compress(pixels, 0)) + chunk(b"IEND", b"")
    image = reopen(io.BytesIO(whole))
    image.load()
    return _rows(image, missing)


def _padded(data: bytes, reopen: Open) -> Rest:
    """Formats without compression: what is missing is missing of the pixels."""
    padding = int(len(data) * MAX_MISSING / (1 - MAX_MISSING))
    try:
        image = reopen(io.BytesIO(data + bytes(padding)))
        image.load()
    except OSError:
        return Rest(None, 1.0, f"more than {MAX_MISSING * 100:.0f} % of it, at its end, is missing")
    return Rest(image, 0.0, f"up to {MAX_MISSING * 100:.0f} % of it, at its end, is missing")


def _rows(image: Image.Image | None, rows: int, height: int = 0) -> Rest:
    share = rows / (height or (image.height if image is not None else 1))
    where = f"{max(share * 100, 1):.0f} % of it, at its end, is missing"
    return Rest(image, share, where if rows else "no row of it is missing")
