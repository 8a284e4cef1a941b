"""The boxes of an MP4, and a look at its sample counts before libav sees them.

libav allocates about 70 bytes for each sample that a header claims, so a file of 30 kB can make it take a gigabyte (17
million samples: measured 1.27 GB, 6.6 s). A sample has at least one byte: more samples than bytes is a lie.
Source: ISO/IEC 14496-12 (`stsz`, `stz2`, `trun`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from smolvlm.errors import VideoError
from smolvlm.media.sources import Source

_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf", b"mvex"}
_FIRST = (b"ftyp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot")
_MAX_BOXES = 1_000_000
_COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # bytes of version, flags and size before the count


@dataclass(frozen=True, slots=True)
class Box:
    """One box: its content lies from `body` to `end`, which may be beyond the file's. `is_top`: it is inside no other."""

    kind: bytes
    body: int
    end: int
    is_top: bool


def is_mp4(head: bytes) -> bool:
    """Whether a file that starts like this (12 bytes do) is built of boxes: MP4, MOV, 3GP, HEIC, AVIF."""
    return head[4:8] in _FIRST


def check_sample_counts(source: Source) -> None:
    """Raise VideoError when an MP4 claims more samples than it has bytes; any other file passes unread."""
    if not is_mp4(source.head(12)):
        return
    with source.open() as stream:
        size_bytes = stream.seek(0, 2)
        claimed = 0
        for box in boxes(stream, size_bytes):
            if box.kind == b"cmov":
                raise VideoError(f"{source.label}: its header is compressed (cmov), which is not read; convert it to MP4.")
            if box.kind not in _COUNT_AT:
                continue
            stream.seek(box.body + _COUNT_AT[box.kind])
            claimed += int.from_bytes(stream.read(4), "big")
            if claimed > size_bytes:
                raise VideoError(
                    f"{source.label}: its header claims {claimed} samples in {size_bytes} bytes; it is damaged. Copy or download it again."
                )


def boxes(stream: BinaryIO, size_bytes: int) -> Iterator[Box]:
    """Every box, in the file's order. Broken boxes end the walk: libav says what is wrong with them."""
    spans = [(0, size_bytes)]  # still to be walked: (next box, end)
    for _ in range(_MAX_BOXES):
        while spans and spans[-1][1] - spans[-1][0] < 8:
            spans.pop()
        if not spans:
            return
        is_top = len(spans) == 1
        at, end = spans.pop()
        stream.seek(at)
        head = stream.read(16)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        body = at + 8
        if size == 1 and len(head) == 16:
            size, body = struct.unpack(">Q", head[8:])[0], at + 16
        elif size == 0:
            size = end - at
        if size < body - at:
            return
        spans.append((at + size, end))
        if kind in _CONTAINERS:
            spans.append((body, min(at + size, end)))
        yield Box(kind, body, at + size, is_top)
