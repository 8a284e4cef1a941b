"""What the markers of a JPEG say before any pixel is decoded: size, coding, and which scans are there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import BinaryIO

_SOF = {*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC}
_MAX_SEGMENTS = 2000


@dataclass(frozen=True)
class JpegFrame:
    """The frame header (ITU T.81, B.2.2) of one JPEG, and its first scan.

    coding: the low half of the SOF marker: 0, 1 sequential, 2 progressive, 3 lossless, 9 and more arithmetic
    sampling: (horizontal, vertical) factors of each component
    scan_components: components in the first scan; fewer than the frame's when the scans are separate
    """

    width: int
    height: int
    bits: int
    coding: int
    sampling: tuple[tuple[int, int], ...]
    scan_components: int

    @property
    def is_photo(self) -> bool:
        """Whether common decoders read it: 8 bits, not lossless, not hierarchical."""
        return self.bits == 8 and self.coding in (0, 1, 2, 9, 10) and len(self.sampling) in (1, 3, 4)

    @property
    def coefficient_bytes(self) -> int:
        """What a decoder must hold of all coefficients at once; 0 when it can go row by row."""
        if self.coding % 8 != 2 and self.scan_components == len(self.sampling):
            return 0
        widest, highest = max(h for h, _ in self.sampling), max(v for _, v in self.sampling)
        values = sum(self.width * self.height * h * v // (widest * highest) for h, v in self.sampling)
        return 2 * values


def read_frame(stream: BinaryIO, offset: int = 0) -> JpegFrame | None:
    """The frame of the JPEG that begins at `offset`, or None where there is none or its markers are damaged."""
    stream.seek(offset)
    if stream.read(2) != b"\xff\xd8":
        return None
    found: tuple[int, int, int, int, tuple[tuple[int, int], ...]] | None = None
    for _ in range(_MAX_SEGMENTS):
        head = stream.read(2)
        while head[:1] == b"\xff" and head[1:] == b"\xff":  # fill bytes
            head = b"\xff" + stream.read(1)
        length = stream.read(2)
        size = int.from_bytes(length, "big") - 2
        if len(head) < 2 or head[0] != 0xFF or len(length) < 2 or size < 0 or 0xD0 <= head[1] <= 0xD9:
            return None
        if head[1] in _SOF:
            body = stream.read(size)
            count = body[5] if len(body) > 5 else 0
            if not count or len(body) < 6 + 3 * count:
                return None
            factors = tuple((body[7 + 3 * i] >> 4, body[7 + 3 * i] & 15) for i in range(count))
            height, width = int.from_bytes(body[1:3], "big"), int.from_bytes(body[3:5], "big")
            if not (width and height) or any(not (1 <= h <= 4 and 1 <= v <= 4) for h, v in factors):
                return None
            found = width, height, body[0], head[1] & 15, factors
        elif head[1] == 0xDA:
            components = stream.read(1)
            return JpegFrame(*found, components[0]) if found and components else None
        else:
            stream.seek(size, 1)
    return None


def progressive_scans_cover(data: bytes, components: int) -> bool:
    """Whether each component has a first scan of every coefficient, so that only refinements can be missing."""
    covered: dict[int, set[int]] = {}
    at = data.find(b"\xff\xda")
    while at >= 0:
        count = data[at + 4] if len(data) > at + 4 else 0
        body = data[at + 5 : at + 5 + 2 * count + 3]
        following = data.find(b"\xff\xda", at + 2)
        if not 1 <= count <= 4 or len(body) < 2 * count + 3:
            break
        if following >= 0 or len(data) - at > 64:  # a scan that was only begun covers nothing
            first, last = body[-3], body[-2]
            for i in range(count):
                covered.setdefault(body[2 * i], set()).update(range(first, min(last, 63) + 1))
        at = following
    return len(covered) >= components and all(len(found) == 64 for found in covered.values())
