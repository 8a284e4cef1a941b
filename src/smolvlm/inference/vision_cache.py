"""Encoded tiles by the content of their pixels: the same picture, wherever it comes from, is encoded once."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import ImageEmbeds

Pixels = npt.NDArray[np.uint8]


@dataclass(eq=False)
class Tile:
    """One tile of a prompt: `pixels` uint8 (side, side, 3) until it is encoded, `embeds` from then on (1 tile)."""

    key: str
    pixels: Pixels | None = None
    embeds: ImageEmbeds | None = None


def tile_key(pixels: Pixels) -> str:
    """The content hash of one uint8 tile."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()


class TileCache:
    """Encoded tiles, least recently used ones dropped beyond `max_bytes`. Safe to use from several threads.

    `tile_bytes` is what one encoded tile takes. Whoever holds a handle keeps it, whether it is still here or not.
    """

    def __init__(self, max_bytes: int, tile_bytes: int) -> None:
        self._capacity = max_bytes // max(1, tile_bytes)
        self._tile_bytes = tile_bytes
        self._lock = threading.Lock()
        self._tiles: OrderedDict[str, ImageEmbeds] = OrderedDict()

    @property
    def nbytes(self) -> int:
        return len(self._tiles) * self._tile_bytes

    def get(self, key: str) -> ImageEmbeds | None:
        with self._lock:
            embeds = self._tiles.get(key)
            if embeds is not None:
                self._tiles.move_to_end(key)
            return embeds

    def get_all(self, keys: Sequence[str]) -> list[ImageEmbeds] | None:
        """The handles of all `keys`, or None when one of them is missing."""
        found = [self.get(key) for key in keys]
        return None if any(embeds is None for embeds in found) else [e for e in found if e is not None]

    def put(self, tiles: Iterable[tuple[str, ImageEmbeds]]) -> None:
        with self._lock:
            for key, embeds in tiles:
                self._tiles[key] = embeds
                self._tiles.move_to_end(key)
            while len(self._tiles) > self._capacity:
                self._tiles.popitem(last=False)
