"""A prompt on its way into a KV cache: its tiles are encoded and its tokens prefilled piece by piece.

Whoever answers at once runs the task to its end; the server's scheduler steps it between the tokens of other answers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from smolvlm.engines.base import FloatArray
from smolvlm.inference.cached_sequence import CachedSequence
from smolvlm.inference.tile_encoder import PixelValues, TileEncoder
from smolvlm.inference.tiles import Tile, all_embeds
from smolvlm.inference.vision_cache import VisionCache


class PrefillTask:
    """Brings `sequence` to hold a prompt. `logits` (vocab,) are there once `done`. Used by one thread at a time.

    What the sequence holds of the prompt already stays; after the first difference it is rewound at once. A task may be
    dropped after any step: the sequence then holds what was prefilled, and the tiles that were encoded stay so.
    """

    def __init__(
        self,
        sequence: CachedSequence,
        input_ids: Sequence[int],
        tiles: Sequence[Tile],
        pixel_values: PixelValues,
        cache: VisionCache | None = None,
    ) -> None:
        self.sequence, self._ids, self._tiles = sequence, input_ids, tiles
        config = sequence.engine.config
        self._keys = tuple(tile.key for tile in tiles)
        self.cached_tokens, self._tile = sequence.shared_with(input_ids, self._keys)
        sequence.rewind(self.cached_tokens)
        self._position = self.cached_tokens
        self._per_tile = config.image_seq_len
        self._tile_starts = np.flatnonzero(np.asarray(input_ids) == config.image_token_id)[:: self._per_tile].tolist()
        self.encoder = TileEncoder(sequence.engine, tiles[self._tile :], pixel_values, cache)
        self.logits: FloatArray | None = None

    @property
    def done(self) -> bool:
        return self._position == len(self._ids)

    @property
    def prefilled_tokens(self) -> int:
        """Tokens that went through the decoder so far."""
        return self._position - self.cached_tokens

    def prefill(self, chunk: int) -> int:
        """Prefill about `chunk` tokens, whole tiles together; how many it were. The tiles must be encoded."""
        start, end = self._position, self._end(self._position + chunk)
        tiles = sum(1 for at in self._tile_starts[self._tile :] if at < end)
        embeds = all_embeds(self._tiles[self._tile : self._tile + tiles])
        logits = self.sequence.engine.prefill(self.sequence.seq, list(self._ids[start:end]), embeds)
        self._position, self._tile = end, self._tile + tiles
        self.sequence.holds(self._ids[:end], self._keys)
        if self.done:
            self.logits = logits[-1]
        return end - start

    def run(self) -> FloatArray:
        """The rest of the task at once; the logits."""
        self.encoder.run()
        self.prefill(len(self._ids))
        assert self.logits is not None, "a prompt that is done has logits"
        return self.logits

    def _end(self, wanted: int) -> int:
        """Where a chunk that should end at `wanted` ends: not inside a tile, and not where it began."""
        for at in self._tile_starts[self._tile :]:
            if at < wanted < at + self._per_tile:
                wanted = at if at > self._position else at + self._per_tile
                break
        return min(wanted, len(self._ids))
