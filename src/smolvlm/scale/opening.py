"""An item -> its bytes within reach, under the library's limits."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from smolvlm.errors import SourceError
from smolvlm.media import SourcePolicy, open_source
from smolvlm.media.fetch.download import Fetcher
from smolvlm.media.fetch.policy import RemotePolicy
from smolvlm.media.labels import short, short_path
from smolvlm.media.limits import Limits
from smolvlm.media.sources import Source
from smolvlm.scale.items import Item
from smolvlm.scale.shards import CellReader, TarWindow, text_item


class Opener:
    """Opens items for one worker. Addresses go by the policy: each hop and each IP address is checked.

    allow_paths: folders from which lists and tables may name files, beside their own.
    """

    def __init__(self, remote: RemotePolicy, limits: Limits | None = None, allow_paths: Sequence[str] = ()) -> None:
        limits = limits or Limits()
        self._allowed = [os.path.realpath(folder) for folder in allow_paths]
        self._policy = SourcePolicy(allow_urls=False, limits=limits)
        self._pathless = SourcePolicy(allow_paths=False, allow_urls=False, limits=limits)
        self._remote = remote
        self._fetcher = Fetcher(limits, remote)
        self._cells = CellReader()

    @contextlib.contextmanager
    def opened(self, item: Item) -> Iterator[Source]:
        """The content of an item; a temporary file behind it is gone afterwards. Raises SourceError."""
        source = self._open(item)
        try:
            source.label = short_path(item.source)  # not `<200 bytes>`
            yield source
        finally:
            source.close()

    def close(self) -> None:
        self._fetcher.close()

    def _open(self, item: Item) -> Source:
        if item.kind == "unreadable":
            raise SourceError(item.note)
        if item.kind == "url":
            return self._fetched(item.place)
        if item.kind == "tar":
            window = TarWindow(item)
            try:
                return open_source(window, self._policy)  # type: ignore[arg-type]  # it only reads
            finally:
                window.close()
        if item.kind == "cell":
            return self._from_cell(item, self._cells.cell(item))
        if not item.base:
            return open_source(item.place, self._policy)
        if os.path.isabs(item.place):
            return open_source(Path(self._bound(item)), self._policy)
        return open_source(item.place, self._pathless)

    def _bound(self, item: Item) -> str:
        """The file that a list or table names, symbolic links followed. Raises SourceError outside of what it may name."""
        path = os.path.realpath(item.place)
        for folder in (os.path.realpath(item.base), *self._allowed):
            if Path(path).is_relative_to(folder):
                return path
        raise SourceError(
            f"{short_path(item.source)}: lies outside {short_path(item.base)}, the folder of the list or table "
            "that names it; allow its folder with --allow-paths DIR."
        )

    def _fetched(self, url: str) -> Source:
        if not self._remote.hosts:
            raise SourceError(f"{short(url)}: addresses are fetched only from hosts that --remote-hosts names.")
        return self._fetcher.fetch_now(url)

    def _from_cell(self, item: Item, cell: Any) -> Source:
        if isinstance(cell, dict):  # the form of `datasets`: the bytes, else where they are
            cell = cell.get("bytes") or cell.get("path")
        if isinstance(cell, bytes) and cell:
            return open_source(cell, self._policy)
        if isinstance(cell, str) and cell:
            return self._open(text_item(cell, Path(item.place).parent))
        raise SourceError(f"{item.source}: the cell is empty.")
