"""One engine sequence together with what it holds, so that a longer prompt pays only for its new tokens."""

from __future__ import annotations

from collections.abc import Sequence

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
            raise ContextLengthError(
                f"the prompt has {len(input_ids)} tokens and the sequence room for {self.capacity}."
            )
        keep, tiles = self._common_prefix(input_ids, [key for part in embeds for key in part.keys])
        self.rewind(keep)
        logits = self.engine.prefill(self.seq, list(input_ids[keep:]), _after(embeds, tiles))
        self.ids = list(input_ids)
        self.tile_keys = [key for part in embeds for key in part.keys]
        return logits[-1], len(input_ids) - keep

    def _common_prefix(self, input_ids: Sequence[int], tile_keys: Sequence[str]) -> tuple[int, int]:
        """Tokens and whole tiles that the sequence shares with the prompt; at least one token is left to prefill."""
        image_token, per_tile = self.engine.config.image_token_id, self.engine.config.image_seq_len
        image_tokens = 0
        safe = (0, 0)
        for keep, (held, wanted) in enumerate(zip(self.ids, input_ids[:-1], strict=False), start=1):
            if held != wanted:
                break
            if held == image_token:
                tile = image_tokens // per_tile
                if self.tile_keys[tile : tile + 1] != tile_keys[tile : tile + 1]:
                    break  # the placeholder is the same, the picture behind it is not
                image_tokens += 1
            if image_tokens % per_tile == 0:
                safe = (keep, image_tokens // per_tile)
        return safe

    def rewind(self, length: int) -> None:
        """Forget the tokens after the first `length`."""
        self.engine.rewind(self.seq, length)
        self.ids = self.ids[:length]

    def close(self) -> None:
        """Free the sequence; closing it twice is harmless."""
        self.engine.close(self.seq)


def _after(embeds: Sequence[ImageEmbeds], tiles: int) -> list[ImageEmbeds]:
    """The embeddings without their first `tiles` tiles."""
    left: list[ImageEmbeds] = []
    for part in embeds:
        if tiles < len(part):
            left.append(part.tiles(tiles, len(part)))
        tiles = max(0, tiles - len(part))
    return left
