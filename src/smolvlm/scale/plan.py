"""The plan: every input of a run, listed once and frozen, cut into parts. A row group of its file is a part.

It is what makes restarts exact: a part's number names its inputs for good, whatever happens to folders and lists later.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable
from dataclasses import astuple, fields, replace
from pathlib import Path

from smolvlm.checkpoint.folder import sync
from smolvlm.media.labels import one_line
from smolvlm.scale.errors import BatchError, parquet
from smolvlm.scale.items import Item

_COLUMNS = {"index": "int64", "size": "int64"}


def write_plan(path: Path, items: Iterable[Item], part_inputs: int) -> int:
    """List `items` in `path`, which appears whole or not at all; how many there are. Raises BatchError when it is full."""
    pq = parquet()
    import pyarrow as pa

    names = [f.name for f in fields(Item)]
    schema = pa.schema([(name, getattr(pa, _COLUMNS.get(name, "string"))()) for name in names])
    count, temporary = 0, path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, schema) as writer:
                waiting = iter(items)
                while part := list(itertools.islice(waiting, part_inputs)):
                    columns = zip(*(astuple(_plannable(item)) for item in part), strict=True)
                    table = pa.table(dict(zip(names, map(list, columns), strict=True)), schema=schema)
                    writer.write_table(table, row_group_size=part_inputs)
                    count += len(part)
            sync(file)
        os.replace(temporary, path)
    except OSError as error:
        raise BatchError(f"{path}: cannot be written ({one_line(error)}); make room and try again.") from None
    return count


def _plannable(item: Item) -> Item:
    """Names need not be UTF-8, but Parquet's text must be. A member of a shard is found without its name, a file is not."""
    source, place, base = _utf8(item.source), _utf8(item.place), _utf8(item.base)
    if place == item.place:
        return replace(item, source=source, base=base, note=_utf8(item.note))
    return replace(item, source=source, place=place, base=base, kind="unreadable", note=f"{source}: the name is not UTF-8; rename it.")


def _utf8(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


class Plan:
    """A plan that was written before. Raises BatchError for a file that is none."""

    def __init__(self, path: Path) -> None:
        try:
            self._file = parquet().ParquetFile(path)
        except (OSError, ValueError) as error:
            raise BatchError(f"{path}: is not the plan of a run ({one_line(error)}); delete {path.parent} to begin again.") from None
        self.inputs: int = self._file.metadata.num_rows
        self.parts: int = self._file.metadata.num_row_groups

    def count(self, part: int) -> int:
        """How many inputs a part has."""
        return int(self._file.metadata.row_group(part).num_rows)

    def items(self, part: int) -> list[Item]:
        """The inputs of a part, in order."""
        return [Item(**row) for row in self._file.read_row_group(part).to_pylist()]
