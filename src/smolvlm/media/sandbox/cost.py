"""How long a medium will keep a decoding process, guessed from its first bytes: the weight that it has in the fair queue.

A file may lie here. The guess only orders the queue, and is replaced by the time that the work took.
"""

from __future__ import annotations

from smolvlm.media.kinds import picture_format

HEAD_BYTES = 64
_PIXELS_A_SECOND = 20e6  # of a picture: decoding, scaling and cutting into tiles
_PICTURE_BYTES_A_SECOND = 20e6
_VIDEO_BYTES_A_SECOND = 4e6  # H.264 at a usual rate; whatever is sampled of it


def expected_seconds(head: bytes, size: int) -> float:
    """A guess for a medium of `size` bytes that begins with `head`."""
    kind = picture_format(head)
    if kind is None:
        return size / _VIDEO_BYTES_A_SECOND
    width, height = declared_size(head, kind) or (0, 0)
    return width * height / _PIXELS_A_SECOND + size / _PICTURE_BYTES_A_SECOND


def declared_size(head: bytes, kind: str) -> tuple[int, int] | None:
    """(width, height) where the format has them at a fixed place near its beginning."""
    if kind == "PNG" and len(head) >= 24:
        return int.from_bytes(head[16:20], "big"), int.from_bytes(head[20:24], "big")
    if kind == "GIF" and len(head) >= 10:
        return int.from_bytes(head[6:8], "little"), int.from_bytes(head[8:10], "little")
    if kind == "BMP" and len(head) >= 26:
        width, height = (int.from_bytes(head[at : at + 4], "little", signed=True) for at in (18, 22))
        return abs(width), abs(height)
    if kind == "WebP" and len(head) >= 30:
        if head[12:16] == b"VP8X":
            return int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1
        if head[12:16] == b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
        return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF
    return None
