"""Decoding from a static cache under CUDA graphs: one launch a token instead of hundreds.

A graph replays fixed addresses and shapes. So all sequences live in one slab, every step covers the first `rows` slots
and the first `span` positions (both rounded up to a power of two), and a mask hides what a row has not written. Slots
that take no part write to a scratch position behind the last one. The step itself is device-agnostic: on a CPU it runs
without a graph, and the tests compare it there with the plain cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from smolvlm.config import TextConfig
from smolvlm.engines.torch_cache import SequenceCache
from smolvlm.nn.model import SmolVLMForConditionalGeneration

_SMALLEST_SPAN = 256


def _round_up(value: int, smallest: int = 1) -> int:
    return max(smallest, 1 << (value - 1).bit_length())


class SlabStore:
    """All sequences in one tensor, (layers, slots, kv_heads, capacity + 1, head_dim); grows by doubling."""

    def __init__(self, config: TextConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config, self.device, self.dtype = config, device, dtype
        self.slots: list[SequenceCache | None] = []
        self.capacity = 0
        self.generation = 0  # changes when the addresses change: captured graphs are void then
        self.keys, self.values = self._allocate(0, 0)

    def _allocate(self, slots: int, capacity: int) -> tuple[Tensor, Tensor]:
        config = self.config
        shape = (config.num_hidden_layers, slots, config.num_key_value_heads, capacity + 1, config.head_dim)
        # Zeros, not garbage: a hidden position times weight 0 must not be a NaN.
        keys, values = (torch.zeros(shape, device=self.device, dtype=self.dtype) for _ in range(2))
        return keys, values

    def open(self, capacity: int) -> SequenceCache:
        if None not in self.slots or capacity > self.capacity:
            free = None in self.slots
            self._grow(len(self.slots) if free else max(1, 2 * len(self.slots)), _round_up(capacity, _SMALLEST_SPAN))
        slot = self.slots.index(None)
        cache = SequenceCache(self.keys[:, slot, :, :capacity], self.values[:, slot, :, :capacity], slot=slot)
        self.slots[slot] = cache
        return cache

    def close(self, cache: SequenceCache) -> None:
        if 0 <= cache.slot < len(self.slots) and self.slots[cache.slot] is cache:
            self.slots[cache.slot] = None

    def _grow(self, slots: int, capacity: int) -> None:
        capacity = max(capacity, self.capacity)
        old_keys, old_values, old_slots = self.keys, self.values, self.slots
        self.keys, self.values = self._allocate(slots, capacity)
        self.slots = old_slots + [None] * (slots - len(old_slots))
        self.capacity, self.generation = capacity, self.generation + 1
        for slot, cache in enumerate(old_slots):
            if cache is not None:
                held = cache.capacity
                self.keys[:, slot, :, :held] = old_keys[:, slot, :, :held]
                self.values[:, slot, :, :held] = old_values[:, slot, :, :held]
                cache.keys, cache.values = self.keys[:, slot, :, :held], self.values[:, slot, :, :held]


class StaticAttend:
    """The `Attend` of a static step over the first `rows` slots and `span` positions of a slab."""

    def __init__(self, store: SlabStore, rows: int, span: int, positions: Tensor) -> None:
        self.store, self.rows, self.span, self.positions = store, rows, span, positions
        self.row_index = torch.arange(rows, device=positions.device)
        columns = torch.arange(span, device=positions.device)
        self.visible = (columns[None] <= positions[:, None])[:, None, None]  # (rows, 1, 1, span)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self.store.keys[layer], self.store.values[layer]
        keys[self.row_index, :, self.positions] = key[:, :, 0]
        values[self.row_index, :, self.positions] = value[:, :, 0]
        keys, values = keys[: self.rows, :, : self.span], values[: self.rows, :, : self.span]
        folded = query.unflatten(1, (keys.shape[1], -1)).squeeze(3)  # (rows, kv_heads, groups, head_dim)
        return F.scaled_dot_product_attention(folded, keys, values, attn_mask=self.visible).flatten(1, 2).unsqueeze(2)


@dataclass
class _Step:
    """Fixed inputs and output of one captured shape."""

    token_ids: Tensor  # (rows,)
    positions: Tensor  # (rows,)
    logits: Tensor  # (rows, vocab), written by `run`
    run: Callable[[], None]


class StaticDecoder:
    """Runs decode steps over a slab, captured once for each (rows, span) on CUDA."""

    def __init__(self, model: SmolVLMForConditionalGeneration, store: SlabStore) -> None:
        self.model, self.store = model, store
        self._steps: dict[tuple[int, int], _Step] = {}
        self._generation = store.generation

    def decode(self, caches: Sequence[SequenceCache], token_ids: Sequence[int]) -> Tensor:
        """Append one token to each; logits (batch, vocab) in the order given. The caller advances the lengths."""
        if self._generation != self.store.generation:
            self._steps.clear()
            self._generation = self.store.generation
        rows = min(_round_up(1 + max(cache.slot for cache in caches)), len(self.store.slots))
        span = min(_round_up(1 + max(cache.length for cache in caches), _SMALLEST_SPAN), self.store.capacity)
        if (rows, span) not in self._steps:
            self._steps[rows, span] = self._prepare(rows, span)
        step = self._steps[rows, span]
        positions, tokens = [self.store.capacity] * rows, [0] * rows  # idle slots write to the scratch position
        for cache, token in zip(caches, token_ids, strict=True):
            positions[cache.slot], tokens[cache.slot] = cache.length, token
        step.positions.copy_(torch.tensor(positions))
        step.token_ids.copy_(torch.tensor(tokens))
        step.run()
        return step.logits[[cache.slot for cache in caches]]

    def _prepare(self, rows: int, span: int) -> _Step:
        device = self.store.device
        token_ids = torch.zeros(rows, dtype=torch.int64, device=device)
        positions = torch.full((rows,), self.store.capacity, dtype=torch.int64, device=device)
        logits = torch.empty(rows, self.model.config.text.vocab_size, dtype=self.store.dtype, device=device)
        limit = self.model.config.text.max_position_embeddings - 1  # the scratch position may lie behind the rotary table

        def forward() -> None:
            attend = StaticAttend(self.store, rows, span, positions)
            inputs_embeds = self.model.model.text_model.embed_tokens(token_ids)[:, None]
            hidden = self.model.model.text_model(inputs_embeds, positions.clamp(max=limit)[:, None], attend)
            logits.copy_(self.model.lm_head(hidden)[:, 0])

        return _Step(token_ids, positions, logits, _captured(forward) if device.type == "cuda" else forward)


def _captured(forward: Callable[[], None]) -> Callable[[], None]:
    """Warm up on a side stream, as graph capture demands, then record once."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            forward()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        forward()
    return graph.replay
