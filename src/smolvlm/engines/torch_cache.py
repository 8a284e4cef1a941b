"""The torch engine's KV cache: keys and values in pages of one pool, whole pages of a prefix shared by forks.

A page is `PAGE_TOKENS` neighbouring slots of the pool. A sequence whose pages lie side by side is attended where it lies;
else its slots are gathered. Nothing is reserved for tokens that have not come.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smolvlm.config import TextConfig
from smolvlm.nn.attention import attention

PAGE_TOKENS = 64  # as the native engine's


@dataclass(eq=False)
class SequenceCache:
    """One sequence: the first `length` slots of its `pages` hold tokens, and it may come to `capacity` of them."""

    capacity: int
    pages: list[int] = field(default_factory=list)
    length: int = 0

    def table(self, stop: int) -> npt.NDArray[np.int64]:
        """The slots of the first `stop` tokens, in order."""
        pages = np.asarray(self.pages[: -(-stop // PAGE_TOKENS)], np.int64)
        return (pages[:, None] * PAGE_TOKENS + np.arange(PAGE_TOKENS)).reshape(-1)[:stop]

    def slots(self, start: int, stop: int, device: torch.device) -> slice | Tensor:
        """Where the tokens `start:stop` lie in the pool: a slice where they lie side by side."""
        table = self.table(stop)[start:]
        if table[-1] - table[0] == len(table) - 1 and (np.diff(table) == 1).all():
            return slice(int(table[0]), int(table[-1]) + 1)
        return torch.from_numpy(table.copy()).to(device)


class PagePool:
    """Keys and values of all sequences, each layer (kv_heads, slots, head_dim). Page 0 is scratch: it holds nobody's tokens.

    `generation` changes when the pool moves, and with it all addresses.
    """

    def __init__(self, config: TextConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.generation = 0
        # Zeros, not garbage: what is hidden from a query, at weight 0, must still be a number.
        scratch = (config.num_key_value_heads, PAGE_TOKENS, config.head_dim)
        self.keys, self.values = (
            [torch.zeros(scratch, device=device, dtype=dtype) for _ in range(config.num_hidden_layers)] for _ in range(2)
        )
        self._users = np.ones(1, np.int32)  # of each page

    @property
    def in_use(self) -> int:
        """Pages that hold tokens of some sequence."""
        return int(np.count_nonzero(self._users)) - 1

    def open(self, capacity: int) -> SequenceCache:
        return SequenceCache(capacity)

    def reserve(self, caches: Sequence[SequenceCache], counts: Iterable[int]) -> None:
        """Pages for so many more tokens of each; a page that others use too is copied before it is written."""
        for cache, count in zip(caches, counts, strict=True):
            whole, part = divmod(cache.length, PAGE_TOKENS)
            self._drop(cache.pages[whole + bool(part) :])
            del cache.pages[whole + bool(part) :]
            if part and self._users[cache.pages[-1]] > 1:
                old = cache.pages.pop()
                new = self._take(cache.pages, 1)[0]
                for layer in (*self.keys, *self.values):
                    layer[:, new * PAGE_TOKENS :][:, :part] = layer[:, old * PAGE_TOKENS :][:, :part]
                self._drop([old])
                cache.pages.append(new)
            needed = -(-(cache.length + count) // PAGE_TOKENS) - len(cache.pages)
            cache.pages += self._take(cache.pages, needed)

    def fork(self, cache: SequenceCache) -> SequenceCache:
        """A second sequence over the same pages."""
        pages = cache.pages[: -(-cache.length // PAGE_TOKENS)]
        np.add.at(self._users, pages, 1)
        return SequenceCache(cache.capacity, list(pages), cache.length)

    def rewind(self, cache: SequenceCache, length: int) -> None:
        cache.length = length
        keep = -(-length // PAGE_TOKENS)
        self._drop(cache.pages[keep:])
        del cache.pages[keep:]

    def close(self, cache: SequenceCache) -> None:
        self.rewind(cache, 0)
        if self.device.type == "cpu" and not self.in_use:  # on a GPU, graphs know the addresses
            self._resize(1)

    def _drop(self, pages: Sequence[int]) -> None:
        np.subtract.at(self._users, list(pages), 1)

    def _take(self, after: Sequence[int], count: int) -> list[int]:
        """`count` free pages, side by side behind the last of `after` where that can be; the pool grows where they lack."""
        if count <= 0:
            return []
        free = self._users == 0
        start = after[-1] + 1 if after else -1
        if not 0 < start <= len(free) - count or not free[start : start + count].all():
            start = _first_run(free, count)
        if start < 0 and np.count_nonzero(free) >= count:
            pages: list[int] = np.flatnonzero(free)[:count].tolist()
        else:
            if start < 0:
                start = len(free) - int(np.argmin(free[::-1]))  # behind the last page that is in use
                self._resize(max(start + count, 2 * len(free) if len(free) < 1024 else len(free) * 5 // 4))
            pages = list(range(start, start + count))
        self._users[pages] = 1
        return pages

    def _resize(self, pages: int) -> None:
        """Another size, layer by layer, so that hardly more than the pool is needed for it; tokens stay in their slots."""
        shape = (self.config.num_key_value_heads, pages * PAGE_TOKENS, self.config.head_dim)
        held = min(pages, len(self._users)) * PAGE_TOKENS
        for layers in (self.keys, self.values):
            for layer, old in enumerate(layers):
                made = torch.empty(shape, device=self.device, dtype=self.dtype)  # a CPU touches it when tokens come
                made[:, :held] = old[:, :held]
                layers[layer] = made
        self._users = np.concatenate([self._users[:pages], np.zeros(max(0, pages - len(self._users)), np.int32)])
        self.generation += 1


def _first_run(free: np.ndarray[tuple[int], np.dtype[np.bool_]], count: int) -> int:
    """Where `count` free pages lie side by side first; -1 for nowhere."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], free, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if stop - start >= count:
            return int(start)
    return -1


class AppendOne:
    """The `Attend` of a prefill: append to one sequence, then look at all of it. Its pages are reserved before."""

    def __init__(self, pool: PagePool, cache: SequenceCache, count: int) -> None:
        self.pool = pool
        self.new = cache.slots(cache.length, cache.length + count, pool.device)
        self.all = cache.slots(0, cache.length + count, pool.device)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys[:, self.new] = key[0]
        values[:, self.new] = value[0]
        return attention(query, keys[None, :, self.all], values[None, :, self.all], causal=True)


class AppendPacked:
    """The `Attend` of several prefills in one row, one behind the other: each part sees its own sequence only."""

    def __init__(self, pool: PagePool, caches: Sequence[SequenceCache], counts: Sequence[int]) -> None:
        self.each = [AppendOne(pool, cache, count) for cache, count in zip(caches, counts, strict=True)]
        self.counts = list(counts)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = zip(self.each, *(x.split(self.counts, 2) for x in (query, key, value)), strict=True)
        return torch.cat([one(layer, q, k, v) for one, q, k, v in parts], 2)


class AppendEach:
    """The `Attend` of a decode step: one new token for each of several sequences of unequal lengths."""

    def __init__(self, pool: PagePool, caches: Sequence[SequenceCache]) -> None:
        self.each = [AppendOne(pool, cache, 1) for cache in caches]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if len(self.each) == 1:
            return self.each[0](layer, query, key, value)
        rows = [one(layer, query[i : i + 1], key[i : i + 1], value[i : i + 1]) for i, one in enumerate(self.each)]
        return torch.cat(rows)
