"""Where the torch engine keeps the keys and values of its sequences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from smolvlm.config import TextConfig
from smolvlm.nn.attention import attention


@dataclass
class SequenceCache:
    """One sequence's KV cache: views of (layers, kv_heads, capacity, head_dim), of which the first `length` hold tokens."""

    keys: Tensor
    values: Tensor
    length: int = 0
    slot: int = -1  # its place in a slab, for `SlabStore`

    @property
    def capacity(self) -> int:
        return self.keys.shape[2]

    def copy_from(self, other: SequenceCache) -> None:
        """Take over the tokens of another sequence of at most this capacity."""
        self.length = other.length
        self.keys[:, :, : other.length] = other.keys[:, :, : other.length]
        self.values[:, :, : other.length] = other.values[:, :, : other.length]


class SequenceStore:
    """Memory of its own for each sequence; pages are touched only as tokens arrive."""

    def __init__(self, config: TextConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype

    def open(self, capacity: int) -> SequenceCache:
        shape = (self.config.num_hidden_layers, self.config.num_key_value_heads, capacity, self.config.head_dim)
        keys, values = (torch.empty(shape, device=self.device, dtype=self.dtype) for _ in range(2))
        return SequenceCache(keys, values)

    def close(self, cache: SequenceCache) -> None:
        """Nothing else refers to the memory: dropping the handle frees it."""


class AppendOne:
    """The `Attend` of a prefill: append to one sequence, then look at all of it."""

    def __init__(self, cache: SequenceCache) -> None:
        self.cache = cache

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        start, stop = self.cache.length, self.cache.length + key.shape[2]
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[:, start:stop] = key[0]
        values[:, start:stop] = value[0]
        return attention(query, keys[None, :, :stop], values[None, :, :stop], causal=True)


class AppendPacked:
    """The `Attend` of several prefills in one row, one behind the other: each part sees its own sequence only."""

    def __init__(self, caches: Sequence[SequenceCache], counts: Sequence[int]) -> None:
        self.each, self.counts = [AppendOne(cache) for cache in caches], list(counts)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        parts = zip(self.each, *(x.split(self.counts, 2) for x in (query, key, value)), strict=True)
        return torch.cat([one(layer, q, k, v) for one, q, k, v in parts], 2)


class AppendEach:
    """The `Attend` of a decode step: one new token for each of several sequences of unequal lengths."""

    def __init__(self, caches: Sequence[SequenceCache]) -> None:
        self.each = [AppendOne(cache) for cache in caches]

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        if len(self.each) == 1:
            return self.each[0](layer, query, key, value)
        rows = [one(layer, query[i : i + 1], key[i : i + 1], value[i : i + 1]) for i, one in enumerate(self.each)]
        return torch.cat(rows)
