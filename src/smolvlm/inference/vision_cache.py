"""Encoded tiles by the content of their pixels: the same picture, wherever it comes from, is encoded once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence

from smolvlm.engines.base import ImageEmbeds


class VisionCache:
    """Encoded tiles, least recently used ones dropped beyond `max_bytes`. Safe to use from several threads.

    `tile_bytes` is what one encoded tile takes. Whoever holds a handle keeps it, whether it is still here or not.
    """

    def __init__(self, max_bytes: int, tile_bytes: int) -> None:
        self._capacity = max_bytes // max(1, tile_bytes)
        self._tile_bytes = tile_bytes
        self._lock = threading.Lock()
        self._embeds: OrderedDict[str, ImageEmbeds] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return len(self._embeds) * self._tile_bytes

    def get(self, key: str) -> ImageEmbeds | None:
        with self._lock:
            embeds = self._embeds.get(key)
            if embeds is not None:
                self._embeds.move_to_end(key)
            return embeds

    def get_all(self, keys: Sequence[str]) -> list[ImageEmbeds] | None:
        """The handles of all `keys`, or None when one of them is missing."""
        found = [self.get(key) for key in keys]
        return None if any(embeds is None for embeds in found) else [e for e in found if e is not None]

    def put(self, tiles: Iterable[tuple[str, ImageEmbeds]]) -> None:
        with self._lock:
            for key, embeds in tiles:
                self._embeds[key] = embeds
                self._embeds.move_to_end(key)
            while len(self._embeds) > self._capacity:
                self._embeds.popitem(last=False)
