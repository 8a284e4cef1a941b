"""One engine sequence together with what its KV cache holds, so that a prompt that begins alike pays only for what is new.

A session keeps one, the server's prefix cache many; a prefill task brings one to hold a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import Engine, SeqHandle

Ids: TypeAlias = Sequence[int] | npt.NDArray[np.int32]

HEAD_TOKENS = 16  # enough to tell most prompts apart at a glance


class CachedSequence:
    """`ids` (int32) are the tokens in the KV cache of `seq`, `tile_keys` the content hashes of the tiles behind its image
    tokens, in order; there may be more of these than the tokens need. `owner`: whose prompts may begin with it, where several
    people's do."""

    def __init__(self, engine: Engine, seq: SeqHandle, ids: Ids = (), tile_keys: Sequence[str] = (), owner: str = "") -> None:
        self.engine, self.seq, self.owner = engine, seq, owner
        self.tile_keys = tuple(tile_keys)
        self._hold(np.asarray(ids, np.int32))

    @classmethod
    def open(cls, engine: Engine, capacity: int, owner: str = "") -> CachedSequence:
        """An empty one with room for `capacity` tokens. Raises ContextLengthError beyond the model's context."""
        return cls(engine, engine.open(capacity), owner=owner)

    def shared_with(self, ids: Ids, tile_keys: Sequence[str]) -> tuple[int, int]:
        """Tokens and whole tiles that it shares with a prompt; at least one token is left to prefill."""
        config = self.engine.config
        return common_prefix(self.ids, self.tile_keys, ids, tile_keys, config.image_token_id, config.image_seq_len)

    def rewind(self, length: int) -> None:
        """Forget the tokens after the first `length`, those of an answer that nobody read to its end too."""
        self.engine.rewind(self.seq, length)
        self._hold(self.ids[:length])

    def fork(self, length: int) -> CachedSequence:
        """A second sequence that holds the first `length` tokens; either may go on without the other noticing."""
        made = CachedSequence(self.engine, self.engine.fork(self.seq), self.ids, self.tile_keys, self.owner)
        made.rewind(length)
        return made

    def holds(self, ids: Ids, tile_keys: Sequence[str] | None = None) -> None:
        """The engine's sequence holds the beginning of `ids` now: after a prefill, and when an answer has ended."""
        if tile_keys is not None:
            self.tile_keys = tuple(tile_keys)
        self._hold(np.asarray(ids[: self.engine.length(self.seq)], np.int32))

    def begins_with(self, other: CachedSequence) -> bool:
        """Whether `other` holds nothing that this one does not hold for the same owner at the same place."""
        size = len(other.ids)
        return (
            self.owner == other.owner
            and len(self.ids) >= size
            and self.tile_keys[: len(other.tile_keys)] == other.tile_keys  # what tells most apart comes first
            and self.head[: len(other.head)] == other.head
            and bool((self.ids[:size] == other.ids).all())
        )

    def close(self) -> None:
        """Free the sequence; closing it twice is harmless."""
        self.engine.close(self.seq)

    def _hold(self, ids: npt.NDArray[np.int32]) -> None:
        self.ids, self.head = ids, ids[:HEAD_TOKENS].tobytes()


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
