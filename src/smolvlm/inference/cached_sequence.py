"""One engine sequence together with what it holds, so that a longer prompt pays only for its new tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import Engine, FloatArray, ImageEmbeds
from smolvlm.errors import ContextLengthError


class PromptCache:
    """The KV cache of a conversation. `ids` are the tokens in it, `tile_keys` the pictures behind its image tokens."""

    def __init__(self, engine: Engine, capacity: int) -> None:
        """Open a sequence with room for `capacity` tokens. Raises ContextLengthError beyond the model's context."""
        self.engine = engine
        self.capacity = capacity
        self.seq = engine.open(capacity)
        self.ids: list[int] = []
        self.tile_keys: list[str] = []

    def prefill(self, input_ids: Sequence[int], embeds: Sequence[ImageEmbeds]) -> tuple[FloatArray, int]:
        """Bring the sequence to hold exactly `input_ids`; the last logits (vocab,) and how many tokens that cost.

        What the sequence already holds of the prompt stays; after the first difference it is rewound and prefilled.
        """
        if len(input_ids) >= self.capacity:
            raise ContextLengthError(f"the prompt has {len(input_ids)} tokens and the sequence room for {self.capacity}.")
        tile_keys = [key for part in embeds for key in part.keys]
        config = self.engine.config
        keep, tiles = common_prefix(self.ids, self.tile_keys, input_ids, tile_keys, config.image_token_id, config.image_seq_len)
        self.rewind(keep)
        logits = self.engine.prefill(self.seq, list(input_ids[keep:]), _after(embeds, tiles))
        self.ids = list(input_ids)
        self.tile_keys = tile_keys
        return logits[-1], len(input_ids) - keep

    def rewind(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.engine.rewind(self.seq, length)
        self.ids = self.ids[:length]

    def close(self) -> None:
        """Free the sequence; closing it twice is harmless."""
        self.engine.close(self.seq)


Ids: TypeAlias = Sequence[int] | npt.NDArray[np.int32]


def common_prefix(
    held_ids: Ids, held_tiles: Sequence[str], wanted_ids: Ids, wanted_tiles: Sequence[str], image_token: int, per_tile: int
) -> tuple[int, int]:
    """Tokens and whole tiles that a sequence shares with a prompt; at least one token is left to prefill.

    Image tokens are alike only where the tiles behind them are: `*_tiles` are content hashes, one for each run of
    `per_tile` image tokens.
    """
    size = min(len(held_ids), len(wanted_ids) - 1)
    if size <= 0:
        return 0, 0
    held, wanted = np.asarray(held_ids[:size], np.int64), np.asarray(wanted_ids[:size], np.int64)
    differ = np.flatnonzero(held != wanted)
    keep = int(differ[0]) if len(differ) else size
    same = 0
    for ours, theirs in zip(held_tiles, wanted_tiles, strict=False):
        if ours != theirs:
            break
        same += 1
    images = np.flatnonzero(wanted[:keep] == image_token)
    tiles = min(len(images) // per_tile, same)
    if len(images) > tiles * per_tile:
        keep = int(images[tiles * per_tile])  # back to before the first tile that differs or is not whole
    return keep, tiles


def _after(embeds: Sequence[ImageEmbeds], tiles: int) -> list[ImageEmbeds]:
    """The embeddings without their first `tiles` tiles."""
    left: list[ImageEmbeds] = []
    for part in embeds:
        if tiles < len(part):
            left.append(part.tiles(tiles, len(part)))
        tiles = max(0, tiles - len(part))
    return left
