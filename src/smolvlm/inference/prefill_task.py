"""A prompt in the making: its tiles are encoded and its tokens prefilled piece by piece."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np

from smolvlm.engines.base import Engine, FloatArray, ImageEmbeds, SeqHandle
from smolvlm.inference.prefix_cache import Found
from smolvlm.inference.vision_cache import Pixels, Tile, TileCache
from smolvlm.serve.job import Job


class Prompting:
    """Brings a sequence to hold a job's prompt. `logits` (vocab,) are there once `done`. Used by the engine's thread alone."""

    def __init__(
        self,
        engine: Engine,
        job: Job,
        found: Found | None,
        cache: TileCache,
        encodable: Callable[[Sequence[Pixels]], FloatArray],
        queued_s: float,
    ) -> None:
        """`found` is a sequence that holds the beginning of the prompt already."""
        self._engine, self._cache, self._encodable = engine, cache, encodable
        self.job, self.queued_s, self.began_at = job, queued_s, time.monotonic()
        config = engine.config
        # Room for the whole context: a longer prompt that begins like this one forks the sequence, capacity and all.
        self.seq: SeqHandle = found.seq if found else engine.open(config.text.max_position_embeddings)
        self.cached_tokens, tiles = (found.tokens, found.tiles) if found else (0, 0)
        self._position, self._tile = self.cached_tokens, tiles
        self._per_tile = config.image_seq_len
        ids = np.asarray(job.input_ids)
        self._tile_starts = np.flatnonzero(ids == config.image_token_id)[:: self._per_tile].tolist()
        self._to_encode = self._missing(job.tiles[tiles:])
        self.encoded_tiles = 0
        self.logits: FloatArray | None = None

    @property
    def tiles_left(self) -> int:
        """Tiles that must be encoded before the prompt can be prefilled."""
        return len(self._to_encode)

    @property
    def done(self) -> bool:
        return self._position == len(self.job.input_ids)

    def encode(self, count: int) -> None:
        """Encode the next `count` tiles."""
        group, self._to_encode = self._to_encode[:count], self._to_encode[count:]
        pixels = [tile.pixels for tile in group if tile.pixels is not None]
        assert len(pixels) == len(group), "a tile has pixels or embeddings"
        embeds = self._engine.encode_images(self._encodable(pixels))
        for i, tile in enumerate(group):
            tile.embeds, tile.pixels = embeds.tiles(i, i + 1), None
        self._cache.put((tile.key, tile.embeds) for tile in group if tile.embeds is not None)
        self.encoded_tiles += len(group)
        self._to_encode = self._missing(self._to_encode)  # the same tile may come again

    def prefill(self, chunk: int) -> int:
        """Prefill about `chunk` tokens, whole tiles together; how many it were."""
        start, end = self._position, self._end(self._position + chunk)
        tiles = sum(1 for at in self._tile_starts[self._tile :] if at < end)
        embeds = [tile.embeds for tile in self.job.tiles[self._tile : self._tile + tiles]]
        logits = self._engine.prefill(self.seq, self.job.input_ids[start:end], [e for e in embeds if e is not None])
        self._position, self._tile = end, self._tile + tiles
        if self.done:
            self.logits = logits[-1]
        return end - start

    def _end(self, wanted: int) -> int:
        """Where a chunk that should end at `wanted` ends: not inside a tile, and not where it began."""
        for at in self._tile_starts[self._tile :]:
            if at < wanted < at + self._per_tile:
                wanted = at if at > self._position else at + self._per_tile
                break
        return min(wanted, len(self.job.input_ids))

    def _missing(self, tiles: Sequence[Tile]) -> list[Tile]:
        """Those without embeddings, after a look into the cache: another prompt may have brought them meanwhile."""
        for tile in tiles:
            if tile.embeds is None:
                found: ImageEmbeds | None = self._cache.get(tile.key)
                if found is not None:
                    tile.embeds, tile.pixels = found, None
        return [tile for tile in tiles if tile.embeds is None]
