"""Tiles through the vision encoder, a few at a time; a tile that comes several times is encoded once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeAlias

import numpy.typing as npt

from smolvlm.engines.base import Engine, FloatArray
from smolvlm.inference.tiles import Tile
from smolvlm.inference.vision_cache import VisionCache

_PATCHES_PER_CALL = 2048  # progress moves and memory stays small

# The encoder's input, float32 (tiles, 3, side, side), of the pixels of some tiles.
PixelValues: TypeAlias = Callable[[Sequence[npt.NDArray[Any]]], FloatArray]


class TileEncoder:
    """Encodes those of `tiles` that are not encoded yet, here or in the cache."""

    def __init__(self, engine: Engine, tiles: Iterable[Tile], pixel_values: PixelValues, cache: VisionCache | None = None) -> None:
        self._engine, self._pixel_values, self._cache = engine, pixel_values, cache
        self._missing: dict[str, list[Tile]] = {}
        for tile in tiles:
            if tile.embeds is None:
                self._missing.setdefault(tile.key, []).append(tile)
        self._look_up()
        self.encoded = 0

    @property
    def left(self) -> int:
        """Tiles that must still be encoded."""
        return len(self._missing)

    def step(self, count: int) -> None:
        """Encode the next `count` tiles."""
        group = list(self._missing.items())[:count]
        pixels = [tiles[0].pixels for _, tiles in group]
        present = [each for each in pixels if each is not None]
        assert len(present) == len(group), "a tile has pixels or embeddings"
        embeds = self._engine.encode_images(self._pixel_values(present))
        fresh = {key: embeds.tiles(i, i + 1) for i, (key, _) in enumerate(group)}
        for key, handle in fresh.items():
            for tile in self._missing.pop(key):
                tile.encoded(handle)
        if self._cache is not None:
            self._cache.put(fresh.items())
        self.encoded += len(group)
        self._look_up()

    def run(self, on_tiles: Callable[[int, int], None] | None = None) -> None:
        """Encode all that are left. `on_tiles(done, total)` is called as they come, and may raise to cancel."""
        total = self.left
        size = max(1, _PATCHES_PER_CALL // self._engine.config.vision.num_patches)
        while self.left:
            self.step(size)
            if on_tiles is not None:
                on_tiles(total - self.left, total)

    def _look_up(self) -> None:
        """Take from the cache what another prompt may have brought meanwhile."""
        if self._cache is None:
            return
        for key in list(self._missing):
            embeds = self._cache.get(key)
            if embeds is not None:
                for tile in self._missing.pop(key):
                    tile.encoded(embeds)
