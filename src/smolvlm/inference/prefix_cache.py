"""The KV caches of finished answers: a prompt that begins like an earlier one pays only for what is new in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import Engine, SeqHandle
from smolvlm.inference.cached_sequence import common_prefix
from smolvlm.inference.kv_pages import KvPages

MOST_KEPT = 256  # sequences: each prompt is compared with all of them
_LEAST = 16  # shorter prefixes (the template's first words) are not worth a fork


@dataclass(frozen=True, eq=False)
class Held:
    """A sequence and what it holds: token ids, and the content hashes of the tiles behind its image tokens."""

    seq: SeqHandle
    ids: npt.NDArray[np.int32]
    tile_keys: tuple[str, ...]
    head: bytes = field(init=False)  # of `ids`: what tells two prompts apart at a glance

    def __post_init__(self) -> None:
        object.__setattr__(self, "head", self.ids[:_LEAST].tobytes())


@dataclass(frozen=True)
class Found:
    """A new sequence whose first `tokens`, with the `tiles` among them, are those of `parent`."""

    seq: SeqHandle
    parent: SeqHandle
    tokens: int
    tiles: int


class PrefixCache:
    """Sequences that nobody uses at the moment, least recently used ones closed first. Used by the engine's thread alone."""

    def __init__(self, engine: Engine, pages: KvPages, most_kept: int = MOST_KEPT) -> None:
        self._engine, self._pages, self._most_kept = engine, pages, most_kept
        self._held: OrderedDict[SeqHandle, Held] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def tokens(self) -> int:
        """Tokens of KV cache that the kept sequences take, in whole pages."""
        return self._pages.of(tuple(self._held)) * self._pages.page_tokens

    def put(self, held: Held) -> None:
        """Keep a finished sequence; those that are wholly a prefix of it are closed, for it serves in their place."""
        for other in [other for other in self._held.values() if _begins(held, other)]:
            self._close(other)
        self._pages.settle(held.seq, len(held.ids))
        self._held[held.seq] = held
        if any(_begins(other, held) for other in self._held.values() if other is not held):
            self._close(held)
        while len(self._held) > self._most_kept:
            self._close(next(iter(self._held.values())))

    def fork(self, ids: Sequence[int], tile_keys: Sequence[str], running: Iterable[Held] = ()) -> Found | None:
        """A new sequence that begins like the prompt; None when no sequence shares enough of it.

        `running` are sequences in use that may be forked as well.
        """
        config = self._engine.config
        best: tuple[int, int, Held] | None = None
        # Most are told apart by a look at what the shortest prefix worth a fork must share.
        wanted = np.asarray(ids, np.int32)
        head, picture = wanted[:_LEAST].tobytes(), tuple(tile_keys[:1])
        picture_first = config.image_token_id in wanted[:_LEAST]
        for held in (*self._held.values(), *running):
            if held.head != head or (picture_first and held.tile_keys[:1] != picture):
                continue
            keep, tiles = common_prefix(held.ids, held.tile_keys, wanted, tile_keys, config.image_token_id, config.image_seq_len)
            if keep >= _LEAST and (best is None or keep > best[0]):
                best = keep, tiles, held
        if best is None:
            return None
        keep, tiles, held = best
        if held.seq in self._held:
            self._held.move_to_end(held.seq)
        seq = self._engine.fork(held.seq)
        self._engine.rewind(seq, keep)
        return Found(seq, held.seq, keep, tiles)

    def shrink(self, pages: int) -> None:
        """Close the least recently used sequences until all sequences, running ones too, take at most `pages`."""
        while self._held and self._pages.total > pages:
            self._close(next(iter(self._held.values())))

    def _close(self, held: Held) -> None:
        del self._held[held.seq]
        self._pages.end(held.seq)
        self._engine.close(held.seq)


def _begins(longer: Held, shorter: Held) -> bool:
    size = len(shorter.ids)
    return (
        len(longer.ids) >= size
        and longer.tile_keys[: len(shorter.tile_keys)] == shorter.tile_keys  # what tells most apart comes first
        and longer.head[: len(shorter.head)] == shorter.head
        and bool((longer.ids[:size] == shorter.ids).all())
    )
