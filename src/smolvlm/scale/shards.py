"""Files that hold many inputs: Parquet (a column of bytes, paths or addresses) and WebDataset shards (.tar).

Planning reads only what says where things are; a worker then reads its own rows or bytes and no others.
"""

from __future__ import annotations

import mimetypes
import os
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from smolvlm.errors import SmolVLMError, SourceError
from smolvlm.media import media_kind
from smolvlm.media.labels import one_line
from smolvlm.media.sources import Source
from smolvlm.scale.errors import BatchError, parquet
from smolvlm.scale.items import Item, item_id

_MEDIA_COLUMNS = (
    "image",
    "video",
    "media",
    "bytes",
    "path",
    "file",
    "file_name",
    "url",
    "image_path",
    "video_path",
    "image_url",
    "video_url",
    "image_bytes",
    "video_bytes",
    "jpg",
    "png",
    "mp4",
)
_URL = re.compile(r"https?://", re.IGNORECASE)
_OTHER_SCHEME = re.compile(r"(data:|[A-Za-z][A-Za-z0-9+.\-]+://)", re.ASCII)
_HEAD_BYTES = 4096


def is_medium(name: str, head: Source) -> bool:
    """Whether a file of a folder or shard counts as an input: by what its name says, else by its first bytes.

    A file called `photo.jpg` counts even if it is broken: that is worth a row. A `photo.txt` beside it does not.
    """
    kind, compressed = _TYPES.guess_type(name, strict=False)
    if compressed is not None:
        return False
    if kind is not None:
        return kind.startswith(("image/", "video/"))
    try:
        media_kind(head)
    except SmolVLMError:
        return False
    return True


_TYPES = mimetypes.MimeTypes(filenames=())  # Python's own table: the system's may call `.ts` a translation


def text_item(text: str, base: Path, *place: object, named_by_user: bool = False) -> Item:
    """A line of a list or a cell of text: an address, a data URL, or a path that is relative to `base` and bound to it.

    The id is that of the place if one is given (a row is an input of its own), else of what the text names.
    """
    if _URL.match(text):
        return Item(item_id(*(place or (text,))), text, "url", text)
    if not _OTHER_SCHEME.match(text):
        text = os.path.abspath(os.path.join(base, os.path.expanduser(text)))
    source = text if len(text) <= 4096 else f"{text[:60]}..."  # a data URL is its content
    bound = "" if named_by_user else os.path.abspath(base)
    return Item(item_id(*(place or (text,))), source, "file", text, base=bound)


def tar_items(path: Path, left_out: list[str]) -> Iterator[Item]:
    """The pictures and videos of a WebDataset shard, in its order. A shard that breaks off ends in an unreadable item."""
    try:
        with tarfile.open(path, "r:") as shard:
            for member in shard:
                if not member.isfile() or member.name.rpartition("/")[2].startswith("."):
                    continue
                file = shard.extractfile(member)
                head = Source(member.name, data=file.read(_HEAD_BYTES) if file is not None else b"")
                if member.sparse is not None or not is_medium(member.name, head):
                    left_out.append(f"{path}/{member.name}")
                    continue
                yield Item(
                    item_id(path, member.name, member.offset_data),
                    f"{path}/{member.name}",
                    "tar",
                    str(path),
                    member.offset_data,
                    member.size,
                )
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        yield Item(
            item_id(path, "end"),
            str(path),
            "unreadable",
            str(path),
            note=f"{path}: the shard cannot be read to its end ({one_line(error)}); make it again.",
        )


def parquet_items(path: Path, column: str | None) -> Iterator[Item]:
    """The rows of a Parquet file. Raises BatchError when it cannot be read or its column of media is not clear."""
    pq = parquet()
    try:
        with pq.ParquetFile(path) as file:
            schema = file.schema_arrow
            name = _media_column(schema, column, path)
            if not _is_text(schema.field(name).type):
                for row in range(file.metadata.num_rows):
                    yield Item(item_id(path, row), f"{path}#{row}", "cell", str(path), row, note=name)
                return
            row = 0
            for batch in file.iter_batches(batch_size=1024, columns=[name]):
                for text in batch.column(0).to_pylist():
                    if text:
                        yield text_item(text, path.parent, path, row)
                    else:
                        yield Item(
                            item_id(path, row), f"{path}#{row}", "unreadable", str(path), row, note=f"{path}, row {row}: the cell is empty."
                        )
                    row += 1
    except BatchError:
        raise
    except Exception as error:  # pyarrow's errors are of many kinds, some of them plain ValueError and OSError
        raise BatchError(f"{path}: cannot be read as Parquet ({one_line(error)}); write it again.") from None


def _media_column(schema: Any, wanted: str | None, path: Path) -> str:
    usable: list[str] = [f.name for f in schema if _is_text(f.type) or _is_bytes(f.type) or _is_struct(f.type)]
    if wanted is not None:
        if wanted in usable:
            return wanted
        raise BatchError(f"{path}: has no column {wanted!r} of bytes, paths or addresses; it has {', '.join(usable) or 'none'}.")
    named = [name for name in usable if name.lower() in _MEDIA_COLUMNS]
    for found in (usable, named):
        if len(found) == 1:
            return found[0]
    raise BatchError(
        f"{path}: which column holds the media is not clear; choose one with --column: "
        f"{', '.join(usable) or 'there is none of bytes, paths or addresses'}."
    )


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _is_bytes(kind: Any) -> bool:
    return str(kind) in ("binary", "large_binary", "binary_view")


def _is_struct(kind: Any) -> bool:
    """`datasets` keeps pictures as a struct of bytes and path."""
    names = {kind.field(i).name for i in range(kind.num_fields)} if str(kind).startswith("struct<") else set()
    return bool(names & {"bytes", "path"})


class TarWindow:
    """The bytes of one member, as a file that is read once. `name` is what messages call it."""

    def __init__(self, item: Item) -> None:
        self.name = item.source
        try:
            self._file = Path(item.place).open("rb")  # noqa: SIM115  (closed by `close`)
            self._file.seek(item.index)
        except OSError as error:
            raise SourceError(f"{item.place}: the shard cannot be opened ({one_line(error)}).") from None
        self._left = item.size

    def read(self, count: int) -> bytes:
        data = self._file.read(min(count, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._file.close()


class CellReader:
    """Cells of Parquet columns. Rows that are asked for in order are read once; memory holds a few rows, not a file."""

    _ROWS_AT_ONCE = 8

    def __init__(self) -> None:
        self._at: tuple[str, str, int] | None = None  # path, column, row group
        self._cells: Iterator[Any] = iter(())
        self._next = self._end = 0

    def cell(self, item: Item) -> Any:
        """Bytes, text, a struct's dict or None. Raises SourceError."""
        try:
            return self._cell(item.place, item.note, item.index)
        except SmolVLMError:
            raise
        except Exception as error:  # as in `parquet_items`
            self._at = None
            raise SourceError(f"{item.source}: cannot be read ({one_line(error)}).") from None

    def _cell(self, path: str, column: str, row: int) -> Any:
        if self._at is None or self._at[:2] != (path, column) or not self._next <= row < self._end:
            self._seek(path, column, row)
        for _ in range(row - self._next):
            next(self._cells)
        self._next = row + 1
        return next(self._cells)

    def _seek(self, path: str, column: str, row: int) -> None:
        file = parquet().ParquetFile(path, pre_buffer=False)
        start = 0
        for group in range(file.metadata.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < start + count:
                batches = file.iter_batches(batch_size=self._ROWS_AT_ONCE, row_groups=[group], columns=[column])
                self._cells = (cell.as_py() for batch in batches for cell in batch.column(0))
                self._at, self._next, self._end = (path, column, group), start, start + count
                return
            start += count
        raise SourceError(f"{path}: has no row {row} any more; the file was changed since the run began.")
