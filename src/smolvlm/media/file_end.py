"""Whether a video file ends before its own structure does. Readers of such files give the frames that are there, in silence.

Sources: RFC 8794 and 9559 (EBML, Matroska), ISO/IEC 14496-12 (MP4: `mdat`, `sidx`, `mehd`), ISO/IEC 13818-1 (packets of 188
bytes), RFC 3533 (Ogg), Adobe's Video File Format 10.1 (FLV), Microsoft's ASF specification 1.20, SMPTE ST 377-1 (MXF).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from smolvlm.media.mp4_boxes import boxes, is_mp4
from smolvlm.media.sources import Source

_MOST_STEPS = 200_000  # elements of one file that are walked over, a second's work; beyond it nothing is said
_SEGMENT, _CLUSTER = 0x18538067, 0x1F43B675
_ASF_HEADER = bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c")
_ASF_PROPERTIES = bytes.fromhex("a1dcab8c47a9cf118ee400c00c205365")
_MXF_PARTITION = bytes.fromhex("060e2b34020501010d0102010102")
_MAX_OGG_PAGE = 65_307


@dataclass(frozen=True)
class Early:
    """A file that ends early.

    promised: its header told the size of the whole, so that bytes are missing for certain. Without it the file may also be one
        that is still being written, or a recording that was stopped.
    duration_s: of the whole by the same header, None where that is left to the video's reader
    """

    promised: bool
    duration_s: float | None = None


def ends_early(source: Source) -> Early | None:
    """What is known of a file that ends before its structure does; None for one that is whole, or of another format."""
    head = source.head(200)
    with source.open() as stream:
        size = stream.seek(0, 2)
        try:
            if head.startswith(b"\x1a\x45\xdf\xa3"):
                return _matroska(stream, size)
            if is_mp4(head):
                return _mp4(stream, size)
            if head.startswith(b"OggS"):
                return None if _ogg_is_whole(stream, size) else Early(False)
            if head.startswith(b"FLV\x01"):
                return None if _flv_is_whole(stream, size) else Early(True)
            if head.startswith(_ASF_HEADER):
                return _asf(stream, size)
            if head.startswith(_MXF_PARTITION):
                return _mxf(head, size)
        except (struct.error, IndexError):  # broken inside a header: libav says what is wrong
            return None
    for at, step in ((0, 188), (4, 192)):
        if len(head) > at + step - 1 and head[at] == 0x47 and head[at + step : at + step + 1] in (b"", b"\x47"):
            return Early(False) if size % step else None
    return None


def is_joined(source: Source) -> bool:
    """Whether a second MP4 stands behind the first, as `cat` joins files. Of other formats the readers read on."""
    if not is_mp4(source.head(12)):
        return False
    with source.open() as stream:
        return sum(box.is_top and box.kind == b"moov" for box in boxes(stream, stream.seek(0, 2))) > 1


def _matroska(stream: BinaryIO, size: int) -> Early | None:
    """The first segment's size; inside one of unknown size, as recorders write it, the last element's."""
    at = 0
    for _ in range(_MOST_STEPS):
        stream.seek(at)
        head = stream.read(12)
        id_bytes = _leading_zeros(head[0]) + 1 if head else 0
        size_bytes = _leading_zeros(head[id_bytes]) + 1 if len(head) > id_bytes else 0
        if not head or id_bytes > 4 or size_bytes > 8:
            return None  # its end, or no EBML from here on
        body = at + id_bytes + size_bytes
        if not size_bytes or body > size:
            return Early(False)
        kind = int.from_bytes(head[:id_bytes], "big")
        coded = int.from_bytes(head[id_bytes : id_bytes + size_bytes], "big")
        length = coded & (1 << 7 * size_bytes) - 1
        if length == (1 << 7 * size_bytes) - 1:
            at = body  # of unknown size: what it holds comes next
            continue
        if kind == _SEGMENT:
            return Early(True) if body + length > size else None
        at = body + length
        if at > size:
            return Early(False)
    return None


def _leading_zeros(byte: int) -> int:
    return 8 - byte.bit_length()


def _mp4(stream: BinaryIO, size: int) -> Early | None:
    """Of a fragmented file. One without fragments has its frames counted in `moov`."""
    fragmented, overruns, promised = False, False, False
    scale, length = 0, 0
    for box in boxes(stream, size):
        if box.is_top and box.kind not in (b"mfra", b"free", b"skip"):
            overruns = box.end > size or box.kind == b"moof"  # the last one decides: a fragment's data follow its `moof`
        fragmented |= box.kind in (b"moof", b"sidx")
        stream.seek(box.body)
        if box.kind == b"mvhd":
            data = stream.read(32)
            scale = struct.unpack(">I", data[20:24] if data[0] else data[12:16])[0]
        elif box.kind == b"mehd":
            data = stream.read(12)
            length = struct.unpack(">Q", data[4:12])[0] if data[0] else struct.unpack(">I", data[4:8])[0]
        elif box.kind == b"sidx":
            promised |= _indexed_end(stream, box.end) > size
    if not fragmented or not (overruns or promised):
        return None
    return Early(promised or length > 0, length / scale if length and scale else None)


def _indexed_end(stream: BinaryIO, end: int) -> int:
    """Where the last part ends that a `sidx` box lists; 0 if it lists one only, as those do that a recorder writes by and by."""
    data = stream.read(32)
    wide = data[0] > 0
    first = struct.unpack(">Q", data[20:28])[0] if wide else struct.unpack(">I", data[16:20])[0]
    count = struct.unpack(">H", data[30:32] if wide else data[22:24])[0]
    stream.seek(-len(data) + (32 if wide else 24), 1)
    references = stream.read(12 * count)
    if count < 2 or len(references) < 12 * count:
        return 0
    return int(end + first + sum(reference[0] & 0x7FFFFFFF for reference in struct.iter_unpack(">III", references)))


def _ogg_is_whole(stream: BinaryIO, size: int) -> bool:
    """Whether the last page is all there and says that it is the last one."""
    start = max(size - 2 * _MAX_OGG_PAGE, 0)
    stream.seek(start)
    tail = stream.read()
    at = tail.rfind(b"OggS")
    if at < 0:
        return True  # something else stands behind the pages
    page = tail[at:]
    if len(page) < 27 or len(page) < 27 + page[26]:
        return False
    return bool(page[5] & 4) and len(page) >= 27 + page[26] + sum(page[27 : 27 + page[26]])


def _flv_is_whole(stream: BinaryIO, size: int) -> bool:
    """Whether the last tag is followed by its size; else the tags are walked, since some writers leave the last size out."""
    stream.seek(max(size - 4, 0))
    before = int.from_bytes(stream.read(4), "big")
    at = size - 4 - before
    if before >= 11 and at >= 13:
        stream.seek(at)
        if int.from_bytes(stream.read(4)[1:], "big") + 11 == before:
            return True
    at = 13
    for _ in range(_MOST_STEPS):
        stream.seek(at)
        head = stream.read(4)
        if not head:
            return True
        if len(head) < 4:
            return False
        if head[0] & 0x1F not in (8, 9, 18):
            return True  # no tag: not for us to say
        at += 11 + int.from_bytes(head[1:], "big") + 4
        if at - 4 > size:
            return False
    return True


def _asf(stream: BinaryIO, size: int) -> Early | None:
    """The size and length that the file properties state; a broadcast states none."""
    stream.seek(0)
    header = stream.read(1 << 16)
    at = header.find(_ASF_PROPERTIES)
    if at < 0:
        return None
    stated, duration, preroll_ms, flags = struct.unpack("<40xQ16xQ8xQI", header[at : at + 92])
    if flags & 1 or stated <= size:
        return None
    seconds = duration / 1e7 - preroll_ms / 1e3
    return Early(True, seconds if seconds > 0 else None)


def _mxf(head: bytes, size: int) -> Early | None:
    """Where the footer begins; 0 in a file whose writer has not come back to the header."""
    value = 17 + (head[16] & 0x7F if head[16] & 0x80 else 0)
    footer = struct.unpack(">Q", head[value + 24 : value + 32])[0]
    return Early(True) if footer >= size else None
