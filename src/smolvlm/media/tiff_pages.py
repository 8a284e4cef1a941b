"""The pages of a TIFF file, sub-pages included, and which of them is the picture.

Cameras write their raw photos as TIFF (DNG, NEF, CR2, ARW and others): the first page is often a small preview.
Sources: TIFF 6.0 section 2 and its tag `NewSubfileType`; Adobe's TIFF technical note 1 (`SubIFDs`); DNG 1.7.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

_MAX_PAGES = 1000
_MAX_ENTRIES = 4096
_FORMATS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_SENSOR = (32803, 34892)  # PhotometricInterpretation: a color filter array, linear sensor values
_SUBFILE_TYPE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION = 254, 256, 257, 259, 262, 274
_SUB_IFDS, _DNG_VERSION = 330, 50706
_WANTED = {_SUBFILE_TYPE, _WIDTH, _HEIGHT, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _SUB_IFDS, _DNG_VERSION}


@dataclass(frozen=True)
class Page:
    """One image file directory. `reduced` and `mask` are bits 0 and 2 of `NewSubfileType`; `sub` is one of `SubIFDs`."""

    offset: int
    width: int
    height: int
    reduced: bool
    mask: bool
    sensor: bool
    orientation: int
    sub: bool

    @property
    def pixels(self) -> int:
        return self.width * self.height


@dataclass(frozen=True)
class TiffFile:
    """The pages in the order of the file. `raw`: a camera's raw photo, whose largest page is no picture yet."""

    order: str
    big: bool
    pages: tuple[Page, ...]
    raw: bool

    @property
    def page_count(self) -> int:
        """Pages of a document: neither previews nor masks nor sub-pages."""
        return sum(not (page.sub or page.reduced or page.mask) for page in self.pages)

    def main_page(self, max_pixels: int) -> Page | None:
        """The first page, or the largest full one when the first is a preview; one that fits where it is too large."""
        pictures = [page for page in self.pages if not (page.sensor or page.mask) and page.pixels]
        if not pictures:
            return None
        first = pictures[0]
        if self.raw or first.reduced:
            full = [page for page in pictures if not page.reduced] if not self.raw else []
            first = max(full or pictures, key=lambda page: page.pixels)
        if first.pixels > max_pixels:
            fitting = [page for page in pictures if page.reduced and page.pixels <= max_pixels]
            return max(fitting, key=lambda page: page.pixels, default=first)
        return first


def read_tiff(stream: BinaryIO) -> TiffFile | None:
    """All pages of a TIFF or BigTIFF, damaged ones left out; None for another file.

    Panasonic's RW2 and Olympus' ORF, whose magic number differs, are read as well: their first page has the orientation.
    """
    stream.seek(0)
    head = stream.read(16)
    order = {b"II": "<", b"MM": ">"}.get(head[:2])
    if order is None or len(head) < 8:
        return None
    magic = head[2:4] if order == "<" else head[3:1:-1]
    big = magic == b"+\0"
    if not big and magic not in (b"*\0", b"U\0", b"RO", b"RS"):
        return None
    if big and (len(head) < 16 or struct.unpack(order + "HH", head[4:8]) != (8, 0)):
        return None
    pages: list[Page] = []
    raw = head[8:10] == b"CR" or magic not in (b"*\0", b"+\0")
    first = struct.unpack(order + "Q", head[8:16])[0] if big else struct.unpack(order + "I", head[4:8])[0]
    todo: list[tuple[int, bool]] = [(first, False)]
    seen: set[int] = set()
    while todo and len(seen) < _MAX_PAGES:
        offset, sub = todo.pop()
        if not offset or offset in seen:
            continue
        seen.add(offset)
        read = _directory(stream, offset, order, big)
        if read is None:
            continue
        tags, following = read
        page = _page(offset, tags, sub)
        pages.append(page)
        raw = raw or page.sensor or _DNG_VERSION in tags
        todo.append((following, sub))
        todo += [(at, True) for at in reversed(tags.get(_SUB_IFDS, ()))]  # before the next page of the chain
    return TiffFile(order, big, tuple(pages), raw)


def describe_page(file: TiffFile, page: Page) -> str | None:
    """A sentence for whoever expects another page, or None."""
    if page.reduced and any(other.pixels > page.pixels and not other.sensor for other in file.pages):
        return (
            f"its full picture is beyond the pixel limit; its reduced copy of {page.width} x {page.height} pixels was "
            "read (raise max_pixels for the full one)."
        )
    if file.pages[0] is not page and file.pages[0].reduced:
        return f"its first page is a small preview; the full picture of {page.width} x {page.height} pixels was read."
    if file.page_count > 1:
        return f"only the first of its {file.page_count} pages was read; save the others as pictures of their own."
    return None


def at_page(stream: BinaryIO, file: TiffFile, page: Page) -> BinaryIO:
    """The same file with `page` as its first, so that any reader of TIFF opens that one."""
    form, at = ("Q", 8) if file.big else ("I", 4)
    return View(stream, patch=(at, struct.pack(file.order + form, page.offset)))


def unlinked(stream: BinaryIO, offsets: Iterable[int]) -> Iterator[tuple[BinaryIO, TiffFile, Page]]:
    """Full pages of the TIFF files that begin at `offsets` inside another one, as writers leave them that append a page
    and stop before they link it."""
    for offset in offsets:
        inner = View(stream, offset)
        file = read_tiff(inner) if offset else None
        page = file.main_page(1 << 62) if file is not None else None
        if file is not None and page is not None and not page.reduced:
            yield inner, file, page


def _page(offset: int, tags: dict[int, tuple[int, ...]], sub: bool) -> Page:
    def value(tag: int) -> int:
        return tags.get(tag, (0,))[0]

    kind = value(_SUBFILE_TYPE)
    orientation = value(_ORIENTATION)
    return Page(
        offset,
        value(_WIDTH),
        value(_HEIGHT),
        bool(kind & 1),
        bool(kind & 4),
        value(_PHOTOMETRIC) in _SENSOR,
        orientation if 1 <= orientation <= 8 else 1,
        sub,
    )


def _directory(stream: BinaryIO, offset: int, order: str, big: bool) -> tuple[dict[int, tuple[int, ...]], int] | None:
    """The wanted tags of one directory and the offset of the next; None where the file ends before it."""
    count_form, entry, pointer = ("Q", 20, "Q") if big else ("H", 12, "I")
    try:
        stream.seek(offset)
        head = stream.read(struct.calcsize(count_form))
        count = struct.unpack(order + count_form, head)[0]
        if count > _MAX_ENTRIES:
            return None
        table = stream.read(count * entry)
        following = stream.read(struct.calcsize(pointer))
    except (struct.error, OSError, ValueError, OverflowError):
        return None
    if len(table) < count * entry:
        return None
    tags: dict[int, tuple[int, ...]] = {}
    for at in range(0, count * entry, entry):
        tag, kind = struct.unpack(order + "HH", table[at : at + 4])
        if tag in _WANTED and kind in _FORMATS and (values := _values(stream, table[at + 4 : at + entry], kind, order, pointer)):
            tags[tag] = values
    end = struct.unpack(order + pointer, following)[0] if len(following) == struct.calcsize(pointer) else 0
    return tags, end


def _values(stream: BinaryIO, field: bytes, kind: int, order: str, pointer: str) -> tuple[int, ...]:
    size = struct.calcsize(pointer)
    count = min(struct.unpack(order + pointer, field[:size])[0], 64)
    form = f"{order}{count}{_FORMATS[kind]}"
    try:
        if (length := struct.calcsize(form)) <= size:
            return struct.unpack(form, field[size : size + length])
        stream.seek(struct.unpack(order + pointer, field[size:])[0])
        return struct.unpack(form, stream.read(length))
    except (struct.error, OSError, ValueError, OverflowError):
        return ()


class View(io.RawIOBase, BinaryIO):
    """Another stream from `start` on, in which the bytes of `patch` (where, what) read as others."""

    def __init__(self, stream: BinaryIO, start: int = 0, patch: tuple[int, bytes] = (0, b"")) -> None:
        self._stream, self._start = stream, start
        self._at, self._replacement = patch
        self.seek(0)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        return self._stream.seek(offset + (self._start if whence == 0 else 0), whence) - self._start

    def tell(self) -> int:
        return self._stream.tell() - self._start

    def read(self, size: int | None = -1, /) -> bytes:
        start = self.tell()
        data = self._stream.read(-1 if size is None else size)
        first, last = max(self._at, start), min(self._at + len(self._replacement), start + len(data))
        if first >= last:
            return data
        return data[: first - start] + self._replacement[first - self._at : last - self._at] + data[last - start :]

    def readinto(self, buffer: Any, /) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")  # libtiff must read through here, not from the file
