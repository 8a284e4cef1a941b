"""The KV caches of finished answers: a prompt that begins like an earlier one pays only for what is new in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from smolvlm.engines.base import Engine, SeqHandle
from smolvlm.prompt_cache import common_prefix

_LEAST = 16  # shorter prefixes (the template's first words) are not worth a fork


@dataclass(frozen=True, eq=False)
class Held:
    """A sequence and what it holds: token ids, and the content hashes of the tiles behind its image tokens."""

    seq: SeqHandle
    ids: tuple[int, ...]
    tile_keys: tuple[str, ...]


class PrefixCache:
    """Sequences that nobody uses at the moment, least recently used ones closed first. Used by the engine's thread alone."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._held: OrderedDict[SeqHandle, Held] = OrderedDict()
        self.tokens = 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, held: Held) -> None:
        """Keep a finished sequence; those that are wholly a prefix of it are closed, for it serves in their place."""
        for other in [other for other in self._held.values() if _begins(held, other)]:
            self._close(other)
        if any(_begins(other, held) for other in self._held.values()):
            self._engine.close(held.seq)
            return
        self._held[held.seq] = held
        self.tokens += len(held.ids)

    def fork(
        self, ids: Sequence[int], tile_keys: Sequence[str], running: Iterable[Held] = ()
    ) -> tuple[SeqHandle, int, int] | None:
        """A new sequence that begins like the prompt, with the tokens and tiles that it holds; None when none is worth it.

        `running` are sequences in use that may be forked as well.
        """
        config = self._engine.config
        best: tuple[int, int, Held] | None = None
        # Hundreds may be held. Most are told apart by a look at what the shortest prefix worth a fork must share.
        head, picture = tuple(ids[:_LEAST]), tuple(tile_keys[:1])
        picture_first = config.image_token_id in head
        for held in (*self._held.values(), *running):
            if held.ids[:_LEAST] != head or (picture_first and held.tile_keys[:1] != picture):
                continue
            keep, tiles = common_prefix(
                held.ids, held.tile_keys, ids, tile_keys, config.image_token_id, config.image_seq_len
            )
            if keep >= _LEAST and (best is None or keep > best[0]):
                best = keep, tiles, held
        if best is None:
            return None
        keep, tiles, held = best
        if held.seq in self._held:
            self._held.move_to_end(held.seq)
        seq = self._engine.fork(held.seq)
        self._engine.rewind(seq, keep)
        return seq, keep, tiles

    def shrink(self, tokens: int) -> None:
        """Close the least recently used sequences until at most `tokens` are held."""
        while self._held and self.tokens > tokens:
            self._close(next(iter(self._held.values())))

    def _close(self, held: Held) -> None:
        del self._held[held.seq]
        self.tokens -= len(held.ids)
        self._engine.close(held.seq)


def _begins(longer: Held, shorter: Held) -> bool:
    return (
        longer.ids[: len(shorter.ids)] == shorter.ids
        and longer.tile_keys[: len(shorter.tile_keys)] == shorter.tile_keys
    )
