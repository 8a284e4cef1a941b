"""A look at an MP4's sample counts before libav sees them.

libav allocates about 70 bytes for each sample that a header claims, so a file of 30 kB can make it take a gigabyte (17
million samples: measured 1.27 GB, 6.6 s). A sample has at least one byte: more samples than bytes is a lie.
Source: ISO/IEC 14496-12 (`stsz`, `stz2`, `trun`).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import BinaryIO

from smolvlm.errors import VideoError
from smolvlm.media.sources import Source

_CONTAINERS = {b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf"}
_MAX_BOXES = 1_000_000
_COUNT_AT = {b"stsz": 8, b"stz2": 8, b"trun": 4}  # bytes of version, flags and size before the count


def check_sample_counts(source: Source) -> None:
    """Raise VideoError when an MP4 claims more samples than it has bytes; any other file passes unread."""
    if source.head(12)[4:8] not in (b"ftyp", b"moov", b"moof", b"mdat", b"wide", b"free", b"skip", b"styp", b"pnot"):
        return
    with source.open() as stream:
        size_bytes = stream.seek(0, 2)
        claimed = 0
        for kind, count in _counts(stream, size_bytes):
            if kind == b"cmov":
                raise VideoError(f"{source.label}: its header is compressed (cmov), which is not read; "
                                 "convert it to MP4.")  # fmt: skip
            claimed += count
            if claimed > size_bytes:
                raise VideoError(f"{source.label}: its header claims {claimed} samples in {size_bytes} bytes; "
                                 "it is damaged. Copy or download it again.")  # fmt: skip


def _counts(stream: BinaryIO, size_bytes: int) -> Iterator[tuple[bytes, int]]:
    """(kind, claimed samples) of every sample table. Broken boxes end the walk: libav says what is wrong with them."""
    ends = [(0, size_bytes)]  # the spans still to be walked: (next box, end)
    for _ in range(_MAX_BOXES):
        while ends and ends[-1][1] - ends[-1][0] < 8:
            ends.pop()
        if not ends:
            return
        at, end = ends.pop()
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
        ends.append((at + size, end))
        if kind in _CONTAINERS:
            ends.append((body, min(at + size, end)))
        elif kind in _COUNT_AT:
            stream.seek(body + _COUNT_AT[kind])
            count = stream.read(4)
            yield kind, int.from_bytes(count, "big")
        elif kind == b"cmov":
            yield kind, 0
