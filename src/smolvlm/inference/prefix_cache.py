"""The KV caches of finished answers: a prompt that begins like an earlier one pays only for what is new in it.

Each owner has prefixes of its own: how fast an answer begins tells nobody what others have asked.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from smolvlm.engines.base import Engine, SeqHandle
from smolvlm.inference.cached_sequence import HEAD_TOKENS, CachedSequence
from smolvlm.inference.kv_pages import KvPages

MOST_KEPT = 256  # sequences: each prompt is compared with all of them


class PrefixCache:
    """Sequences that nobody uses at the moment, least recently used ones closed first. Used by the engine's thread alone."""

    def __init__(self, engine: Engine, pages: KvPages, most_kept: int = MOST_KEPT) -> None:
        self._engine, self._pages, self._most_kept = engine, pages, most_kept
        self._held: OrderedDict[SeqHandle, CachedSequence] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    @property
    def tokens(self) -> int:
        """Tokens of KV cache that the kept sequences take, in whole pages."""
        return self._pages.of(tuple(self._held)) * self._pages.page_tokens

    def put(self, sequence: CachedSequence) -> None:
        """Keep a finished sequence; those that are wholly a prefix of it are closed, for it serves in their place."""
        for other in [other for other in self._held.values() if sequence.begins_with(other)]:
            self._close(other)
        self._pages.settle(sequence.seq, len(sequence.ids))
        self._held[sequence.seq] = sequence
        if any(other.begins_with(sequence) for other in self._held.values() if other is not sequence):
            self._close(sequence)
        while len(self._held) > self._most_kept:
            self._close(next(iter(self._held.values())))

    def fork(
        self, owner: str, ids: Sequence[int], tile_keys: Sequence[str], running: Iterable[CachedSequence] = ()
    ) -> tuple[CachedSequence, CachedSequence] | None:
        """A new sequence that holds the beginning of the prompt, and the one that it was forked from; None when no sequence
        of the owner shares enough of it. `running` are sequences in use that may be forked as well.
        """
        best: tuple[int, CachedSequence] | None = None
        # Most are told apart by a look at what the shortest prefix worth a fork must share.
        wanted = np.asarray(ids, np.int32)
        head, picture = wanted[:HEAD_TOKENS].tobytes(), tuple(tile_keys[:1])
        picture_first = self._engine.config.image_token_id in wanted[:HEAD_TOKENS]
        for held in (*self._held.values(), *running):
            if held.owner != owner or held.head != head or (picture_first and held.tile_keys[:1] != picture):
                continue
            keep, _ = held.shared_with(wanted, tile_keys)
            # Shorter prefixes (the template's first words) are not worth a fork.
            if keep >= HEAD_TOKENS and (best is None or keep > best[0]):
                best = keep, held
        if best is None:
            return None
        keep, held = best
        if held.seq in self._held:
            self._held.move_to_end(held.seq)
        return held.fork(keep), held

    def shrink(self, pages: int) -> None:
        """Close the least recently used sequences until all sequences, running ones too, take at most `pages`."""
        while self._held and self._pages.total > pages:
            self._close(next(iter(self._held.values())))

    def _close(self, held: CachedSequence) -> None:
        del self._held[held.seq]
        self._pages.end(held.seq)
        held.close()
