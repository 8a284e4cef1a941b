"""The frames of an animated PNG, put together by the rules of PNG 3, section 11.3.6.2.

Each frame is a small PNG; Pillow decodes those. Laying them over each other is done here: Pillow 12 makes an opaque canvas
half-transparent under half-transparent parts, and libav 8 forgets the canvas under a full frame that is to be cleared.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL import Image

from smolvlm.errors import ImageError
from smolvlm.media.opening import open_picture

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_OVER, _CLEAR, _RESTORE = 1, 1, 2
_KEPT = (b"PLTE", b"tRNS", b"gAMA", b"sRGB")


def chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def composed_frames(stream: BinaryIO, label: str) -> Iterator[Image.Image]:
    """RGBA pictures of the whole canvas, one a frame. Raises ImageError where the file is cut off or damaged."""
    canvas: Image.Image | None = None
    header, shared = b"", b""
    control: bytes | None = None
    packed = bytearray()
    for kind, body in _chunks(stream):
        if kind in (b"fcTL", b"IEND") and control is not None and packed:
            if canvas is None:
                canvas = Image.new("RGBA", struct.unpack(">II", header[:8]))
            png = chunk(b"IHDR", control[4:12] + header[8:]) + shared + chunk(b"IDAT", bytes(packed)) + chunk(b"IEND", b"")
            before = canvas.copy() if control[24] == _RESTORE else None
            box = _draw(canvas, open_picture(io.BytesIO(SIGNATURE + png), label), control)
            yield canvas
            if before is not None:
                canvas = before
            elif control[24] == _CLEAR:
                canvas.paste((0, 0, 0, 0), box)
            packed.clear()
        if kind == b"IHDR":
            header = body[:13].ljust(13, b"\0")
        elif kind in _KEPT:
            shared += chunk(kind, body)
        elif kind == b"fcTL":
            control = body.ljust(26, b"\0")
        elif kind == b"IDAT" and control is not None:  # else a picture that is not of the animation
            packed += body
        elif kind == b"fdAT" and control is not None:
            packed += body[4:]


def _draw(canvas: Image.Image, frame: Image.Image, control: bytes) -> tuple[int, int, int, int]:
    """Put `frame` where its control chunk says; the box that it covers comes back."""
    left, top = struct.unpack(">II", control[12:20])
    box = (left, top, left + frame.width, top + frame.height)
    if box[2] > canvas.width or box[3] > canvas.height:
        raise ImageError("a frame of the animation lies outside of it; save it again.")
    new = frame.convert("RGBA")
    canvas.paste(Image.alpha_composite(canvas.crop(box), new) if control[25] == _OVER else new, box)
    return box


def _chunks(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    stream.seek(len(SIGNATURE))
    while len(head := stream.read(8)) == 8:
        size, kind = struct.unpack(">I4s", head)
        body = stream.read(size)
        stream.seek(4, 1)
        if len(body) == size:
            yield kind, body
