"""What the handles of encoded tiles share, whatever memory the tiles lie in."""

from __future__ import annotations

import hashlib
from typing import Any, Generic, TypeVar

import numpy as np

from smolvlm.engines.base import FloatArray

A = TypeVar("A")  # an array (tiles, image_seq_len, hidden) of the engine
E = TypeVar("E", bound="KeyedEmbeds[Any]")


class KeyedEmbeds(Generic[A]):
    """Encoded tiles, equal and hashable by the content of their pixels. A subclass says how they become NumPy."""

    def __init__(self, embeds: A, keys: tuple[str, ...]) -> None:
        self.embeds, self._keys = embeds, keys

    @property
    def keys(self) -> tuple[str, ...]:
        return self._keys

    def __len__(self) -> int:
        return len(self._keys)

    def tiles(self: E, start: int, stop: int) -> E:
        return type(self)(self.embeds[start:stop], self._keys[start:stop])

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and isinstance(other, KeyedEmbeds) and self._keys == other._keys

    def __hash__(self) -> int:
        return hash(self._keys)


def tile_keys(pixel_values: FloatArray) -> tuple[str, ...]:
    """One content hash for each tile of (tiles, 3, side, side)."""
    return tuple(hashlib.blake2b(np.ascontiguousarray(tile).data, digest_size=16).hexdigest() for tile in pixel_values)
