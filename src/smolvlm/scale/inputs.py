"""What stands on the command line -> the items behind it, in an order that does not change from run to run."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from smolvlm.media.labels import one_line
from smolvlm.media.sources import Source
from smolvlm.scale.errors import BatchError
from smolvlm.scale.items import Item
from smolvlm.scale.shards import is_medium, parquet_items, tar_items, text_item

LIST_SUFFIXES = (".txt", ".lst")
_PACKED = (".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst", ".7z")
_MAX_LINE_BYTES = 1 << 20


@dataclass
class Inputs:
    """Iterates over the items. `repeated` counts inputs that were named again, `left_out` the files that are no media.

    skipped: files and folders that are never inputs, such as the run's own. Raises BatchError, while it is iterated, for
    an input that does not exist or cannot be read at all.
    """

    names: Sequence[str]
    column: str | None = None
    skipped: Collection[Path] = ()
    repeated: int = 0
    left_out: list[str] = field(default_factory=list)

    def __iter__(self) -> Iterator[Item]:
        seen: set[object] = set()
        for name in self.names:
            for path_or_item in self._found(name):
                # A shard is taken once, and so is a single medium; rows of a shard are inputs of their own.
                key = path_or_item.id if isinstance(path_or_item, Item) else path_or_item
                if key in seen:
                    self.repeated += 1
                    continue
                seen.add(key)
                if isinstance(path_or_item, Item):
                    yield path_or_item
                elif path_or_item.suffix.lower() == ".tar":
                    yield from tar_items(path_or_item, self.left_out)
                else:
                    yield from parquet_items(path_or_item, self.column)

    def _found(self, name: str) -> Iterator[Item | Path]:
        """Single media as items; shards as paths, which `__iter__` opens."""
        item = text_item(name, Path(), named_by_user=True)
        if item.kind == "url" or name.startswith("data:"):
            yield item
            return
        if not os.path.isabs(item.place):
            raise BatchError(f"{name}: such addresses are not opened; mount the store, or pass paths or http(s) URLs.")
        path = Path(item.place)
        try:
            if path.is_dir():
                yield from self._in_folder(path)
            elif not path.exists():
                raise BatchError(f"{name}: no such file or folder; check the name.")
            elif path.suffix.lower() in LIST_SUFFIXES:
                yield from _listed(path)
            elif path.suffix.lower() in _PACKED:
                raise BatchError(f"{name}: packed files are not opened; unpack it, or make it a plain .tar.")
            else:
                yield path if _is_shard(path) else item
        except (OSError, ValueError) as error:
            if isinstance(error, BatchError):
                raise
            raise BatchError(f"{name}: cannot be read ({one_line(error)}).") from None

    def _in_folder(self, folder: Path) -> Iterator[Item | Path]:
        """Everything below a folder, by name. Hidden files and folders are no inputs."""

        def fail(error: OSError) -> None:
            raise BatchError(f"{error.filename}: cannot be read ({one_line(error)}).")

        for root, folders, files in os.walk(folder, onerror=fail):
            folders[:] = sorted(f for f in folders if not f.startswith(".") and Path(root, f) not in self.skipped)
            for file in sorted(files):
                path = Path(root, file)
                if file.startswith(".") or path in self.skipped:
                    continue
                if _is_shard(path):
                    yield path
                elif is_medium(file, Source(file, path=path)):
                    yield text_item(str(path), folder, named_by_user=True)
                else:
                    self.left_out.append(str(path))


def _is_shard(path: Path) -> bool:
    return path.suffix.lower() in (".tar", ".parquet")


def _listed(path: Path) -> Iterator[Item]:
    """One path or address a line; blank lines and lines that begin with # are none.

    Paths are relative to the list, and bound to its folder.
    """
    with path.open("rb") as file:
        number = 0
        while line := file.readline(_MAX_LINE_BYTES + 1):
            number += 1
            if len(line) > _MAX_LINE_BYTES:
                raise BatchError(f"{path}, line {number}: longer than {_MAX_LINE_BYTES:,} bytes; write one path a line.")
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                raise BatchError(f"{path}, line {number}: is not UTF-8; save the list as UTF-8.") from None
            if text and not text.startswith("#"):
                yield text_item(text, path.parent)
