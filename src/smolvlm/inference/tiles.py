"""Tiles of a prompt, each named by the content of its pixels: the one hash that every cache goes by."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import ImageEmbeds

Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(eq=False)
class Tile:
    """One tile: `pixels` uint8 (side, side, 3) until it is encoded, `embeds` (1 tile) from then on."""

    key: str
    pixels: Pixels | None = None
    embeds: ImageEmbeds | None = None

    def encoded(self, embeds: ImageEmbeds) -> None:
        """The encoder's output is here: the pixels go."""
        self.embeds, self.pixels = embeds, None


def tile_key(pixels: npt.NDArray[Any]) -> str:
    """The content hash of one tile."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).hexdigest()


def tiles_of(pixels: npt.NDArray[Any]) -> tuple[Tile, ...]:
    """A medium's tiles, each with its pixels: views, so that the medium's memory goes when its last tile is encoded."""
    return tuple(Tile(tile_key(tile), tile) for tile in pixels)


def stored_tiles(keys: Sequence[str], embeds: ImageEmbeds, store: str) -> tuple[Tile, ...]:
    """Tiles that were encoded before. What a lossy store changed is another content."""
    names = [key if store == "float32" else f"{key}:{store}" for key in keys]
    return tuple(Tile(name, embeds=embeds.tiles(i, i + 1)) for i, name in enumerate(names))


def all_embeds(tiles: Sequence[Tile]) -> list[ImageEmbeds]:
    """The handles of tiles that are encoded."""
    embeds = [tile.embeds for tile in tiles if tile.embeds is not None]
    assert len(embeds) == len(tiles), "a tile is used before it is encoded"
    return embeds
