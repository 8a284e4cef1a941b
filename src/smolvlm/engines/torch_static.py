"""Decoding under CUDA graphs: one launch a token instead of hundreds.

A graph replays fixed addresses and shapes. So every step covers `rows` sequences and `span` positions (both rounded up to a
power of two), a table says in which slot of the page pool each position lies, and a mask hides what a row has not written.
Rows that take no part write to the pool's scratch page. The step itself is device-agnostic: on a CPU it runs without a
graph, and the tests compare it there with the plain cache.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from smolvlm.engines.torch_cache import PagePool, SequenceCache
from smolvlm.nn.model import SmolVLMForConditionalGeneration

_SMALLEST_SPAN = 256


def _round_up(value: int, smallest: int = 1) -> int:
    return max(smallest, 1 << (value - 1).bit_length())


class StaticAttend:
    """The `Attend` of a static step. `slots`: (rows, span), where the positions of each row lie in the pool; `positions`
    (rows,): where its new token stands."""

    def __init__(self, pool: PagePool, slots: Tensor, positions: Tensor) -> None:
        self.pool, self.slots = pool, slots
        self.new = slots.gather(1, positions[:, None]).squeeze(1)
        columns = torch.arange(slots.shape[1], device=positions.device)
        self.visible = (columns[None] <= positions[:, None])[:, None, None]  # (rows, 1, 1, span)

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        keys, values = self.pool.keys[layer], self.pool.values[layer]
        keys[:, self.new] = key[:, :, 0].transpose(0, 1)
        values[:, self.new] = value[:, :, 0].transpose(0, 1)
        keys, values = keys[:, self.slots].transpose(0, 1), values[:, self.slots].transpose(0, 1)  # (rows, kv_heads, span, hd)
        folded = query.unflatten(1, (keys.shape[1], -1)).squeeze(3)  # (rows, kv_heads, groups, head_dim)
        return F.scaled_dot_product_attention(folded, keys, values, attn_mask=self.visible).flatten(1, 2).unsqueeze(2)


@dataclass
class _Step:
    """Fixed inputs and output of one captured shape."""

    token_ids: Tensor  # (rows,)
    positions: Tensor  # (rows,)
    slots: Tensor  # (rows, span)
    logits: Tensor  # (rows, vocab), written by `run`
    run: Callable[[], None]


class StaticDecoder:
    """Runs decode steps over the pool, captured once for each (rows, span) on CUDA."""

    def __init__(self, model: SmolVLMForConditionalGeneration, pool: PagePool) -> None:
        self.model, self.pool = model, pool
        self._steps: dict[tuple[int, int], _Step] = {}
        self._generation = pool.generation

    def decode(self, caches: Sequence[SequenceCache], token_ids: Sequence[int]) -> Tensor:
        """Append one token to each, whose page is reserved; logits (batch, vocab) in the order given. The caller advances
        the lengths."""
        if self._generation != self.pool.generation:
            self._steps.clear()
            self._generation = self.pool.generation
        rows = _round_up(len(caches))
        longest = self.model.config.text.max_position_embeddings
        span = min(_round_up(1 + max(cache.length for cache in caches), _SMALLEST_SPAN), longest)
        if (rows, span) not in self._steps:
            self._steps[rows, span] = self._prepare(rows, span)
        step = self._steps[rows, span]
        slots = np.zeros((rows, span), np.int64)  # the scratch page
        positions, tokens = np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        for row, (cache, token) in enumerate(zip(caches, token_ids, strict=True)):
            slots[row, : cache.length + 1] = cache.table(cache.length + 1)
            positions[row], tokens[row] = cache.length, token
        for fixed, now in ((step.slots, slots), (step.positions, positions), (step.token_ids, tokens)):
            fixed.copy_(torch.from_numpy(now))
        step.run()
        return step.logits[: len(caches)]

    def _prepare(self, rows: int, span: int) -> _Step:
        device = self.pool.device
        token_ids, positions = (torch.zeros(rows, dtype=torch.int64, device=device) for _ in range(2))
        slots = torch.zeros(rows, span, dtype=torch.int64, device=device)
        logits = torch.empty(rows, self.model.config.text.vocab_size, dtype=self.pool.dtype, device=device)

        def forward() -> None:
            attend = StaticAttend(self.pool, slots, positions)
            inputs_embeds = self.model.model.text_model.embed_tokens(token_ids)[:, None]
            hidden = self.model.model.text_model(inputs_embeds, positions[:, None], attend)
            logits.copy_(self.model.lm_head(hidden)[:, 0])

        return _Step(token_ids, positions, slots, logits, _captured(forward) if device.type == "cuda" else forward)


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
