"""Files that hold one whole picture behind the other, as raw MJPEG streams and `cat *.png` make them."""

from __future__ import annotations

import re
from typing import BinaryIO

from smolvlm.media.jpeg_frame import read_frame

_MOST_BYTES = 1 << 24  # of a larger file the beginning is looked through: pictures in a row are small
_NEXT = {"JPEG": re.compile(rb"\xff\xd9\x00{0,16}(?=\xff\xd8\xff)"), "PNG": re.compile(rb"IEND\xaeB`\x82(?=\x89PNG\r\n\x1a\n)")}


def is_row(stream: BinaryIO, format: str | None) -> bool:
    """Whether a second JPEG or PNG of the first one's size follows it. Previews, depth and gain maps of phones are smaller."""
    if format not in _NEXT:
        return False
    stream.seek(0)
    found = _NEXT[format].search(stream.read(_MOST_BYTES))
    if found is None:
        return False
    if format == "JPEG":
        first, second = read_frame(stream), read_frame(stream, found.end())
        return first is not None and second is not None and (first.width, first.height) == (second.width, second.height)
    stream.seek(16)
    size = stream.read(8)
    stream.seek(found.end() + 16)
    return stream.read(8) == size
