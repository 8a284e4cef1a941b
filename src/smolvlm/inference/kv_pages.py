"""Which pages of KV cache the sequences of an engine hold, or may come to hold; a page that forks share counts once.

An engine keeps keys and values in pages of `kv_page_tokens` tokens, so a sequence of 18 tokens takes a whole page. A sequence
is counted with every page that it may still need, from the moment that it is begun. The count is never below what the engine
really holds: a page that is written in part is shared until one of its users writes, and counts for each of them here.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

from smolvlm.engines.base import Engine, SeqHandle


class KvPages:
    """The pages of every sequence. Used by the engine's thread alone; others may read the sums."""

    def __init__(self, engine: Engine) -> None:
        self.page_tokens = engine.kv_page_tokens
        self._pages: dict[SeqHandle, list[int]] = {}
        self._users: Counter[int] = Counter()
        self._numbers = itertools.count()

    @property
    def total(self) -> int:
        """Pages of all sequences together."""
        return len(self._users)

    def needed(self, tokens: int) -> int:
        """Pages that `tokens` of one sequence take."""
        return -(-tokens // self.page_tokens)

    def shared(self, tokens: int) -> int:
        """Pages that a fork has in common with its parent, of whose tokens it keeps the first `tokens`."""
        return tokens // self.page_tokens

    def of(self, seqs: Iterable[SeqHandle]) -> int:
        """Pages of these sequences together."""
        return len({page for seq in seqs for page in self._pages.get(seq, ())})

    def begin(self, seq: SeqHandle, tokens: int, parent: SeqHandle | None = None, shared_tokens: int = 0) -> None:
        """Count a sequence that may come to `tokens`; its first `shared_tokens` are those of `parent`."""
        pages = self._pages[parent][: self.shared(shared_tokens)] if parent is not None else []
        pages += itertools.islice(self._numbers, self.needed(tokens) - len(pages))
        self._pages[seq] = pages
        self._users.update(pages)

    def settle(self, seq: SeqHandle, tokens: int) -> None:
        """The sequence holds `tokens` and will not grow."""
        self._drop(self._pages[seq][self.needed(tokens) :])
        del self._pages[seq][self.needed(tokens) :]

    def end(self, seq: SeqHandle) -> None:
        """The sequence is closed. Once more is harmless."""
        self._drop(self._pages.pop(seq, []))

    def _drop(self, pages: Iterable[int]) -> None:
        for page in pages:
            self._users[page] -= 1
            if not self._users[page]:
                del self._users[page]
