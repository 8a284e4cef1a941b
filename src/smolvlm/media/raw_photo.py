"""Raw photos of cameras: the picture that the camera itself developed and put into the file.

A raw file holds the sensor's values, which need developing, and one or more finished JPEGs. The largest of those is read.
They are found by their markers, which holds for every maker; the directories of the formats say it in a dozen ways.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import BinaryIO

from smolvlm.media.jpeg_frame import JpegFrame, read_frame
from smolvlm.media.tiff_pages import read_tiff

_CHUNK_BYTES = 1 << 20
_MAX_CANDIDATES = 20_000  # a DNG in tiles holds a JPEG a tile
JPEG_STARTS = (b"\xff\xd8\xff",)
TIFF_STARTS = (b"II*\0", b"MM\0*")
_MAGIC = (
    (b"FUJIFILMCCD-RAW ", "RAF"),
    (b"IIRO", "ORF"),
    (b"IIRS", "ORF"),
    (b"MMOR", "ORF"),
    (b"IIU\0", "RW2"),
    (b"FOVb", "X3F"),
    (b"\0MRM", "MRW"),
    (b"II\x1a\0\0\0HEAPCCDR", "CRW"),
)


def raw_format(head: bytes) -> str | None:
    """The raw format that a file starting like this has (32 bytes do), or None; those that are TIFF look like TIFF."""
    if head[4:12] == b"ftypcrx ":
        return "CR3"
    return next((name for magic, name in _MAGIC if head.startswith(magic)), None)


def embedded_jpegs(stream: BinaryIO) -> list[tuple[int, JpegFrame]]:
    """(offset, frame) of every finished JPEG inside the file, the largest first."""
    found: list[tuple[int, JpegFrame]] = []
    for offset in offsets_of(stream, JPEG_STARTS):
        frame = read_frame(stream, offset)
        if frame is not None and frame.is_photo:
            found.append((offset, frame))
    return sorted(found, key=lambda item: -item[1].width * item[1].height)


def raw_orientation(stream: BinaryIO) -> int:
    """How the camera was held, 1..8 as in EXIF, by the file's own directory; 1 where it does not say."""
    file = read_tiff(stream)
    if file is not None:
        return file.pages[0].orientation if file.pages else 1
    stream.seek(0)
    head = stream.read(_CHUNK_BYTES)
    at = head.find(b"CMT1")  # CR3: a box with a TIFF directory of its own
    return raw_orientation(io.BytesIO(head[at + 4 :])) if at > 0 and raw_format(head[:32]) == "CR3" else 1


def offsets_of(stream: BinaryIO, magics: Sequence[bytes]) -> list[int]:
    """Where one of `magics` (of one length) stands in the file, ascending; of very many, the first ones."""
    stream.seek(0)
    found: list[int] = []
    base, tail = 0, b""
    while (chunk := stream.read(_CHUNK_BYTES)) and len(found) < _MAX_CANDIDATES:
        data = tail + chunk
        for magic in magics:
            at = data.find(magic)
            while at >= 0 and len(found) < _MAX_CANDIDATES:
                found.append(base + at)
                at = data.find(magic, at + 1)
        tail = data[1 - len(magics[0]) :]
        base += len(data) - len(tail)
    return sorted(found)
