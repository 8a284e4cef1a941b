"""Scaled dot-product attention, and the one place that decides how a device computes it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Query rows a block: 512 x 1,024 bfloat16 scores are 1 MB. 256 and 1,024 rows were 10 to 40 % slower on two AVX-512 cores.
_BLOCK_ROWS = 512


def attention(query: Tensor, key: Tensor, value: Tensor, *, causal: bool, mask: Tensor | None = None) -> Tensor:
    """Attention with grouped key and value heads, (batch, heads, seq, head_dim) -> the same shape.

    key, value: (batch, kv_heads, kv_seq, head_dim), kv_heads divides heads. `causal` aligns to the lower right: the last
    query sees every key. `mask`: bool, broadcast to (batch, heads, seq, kv_seq), true where a query may look; it
    replaces `causal`. Scores are scaled by head_dim ** -0.5.
    """
    seq, kv_seq = query.shape[-2], key.shape[-2]
    if mask is None and seq == 1:
        causal = False  # one query that sees everything needs no mask
    if mask is None and seq > 1 and _blocked_is_faster(query):
        return _blocked(query, key, value, causal)
    if _products_are_faster(query):
        return _by_products(query, key, value, causal, mask)
    groups = query.shape[1] // key.shape[1]
    if seq == 1 and mask is None and groups > 1:
        # The query heads of one key head stand as rows of one small product: no copy of the keys, 4x faster on a CPU.
        folded = query.unflatten(1, (key.shape[1], groups)).squeeze(3)  # (batch, kv_heads, groups, head_dim)
        return F.scaled_dot_product_attention(folded, key, value).flatten(1, 2).unsqueeze(2)
    if causal and seq != kv_seq:
        mask = torch.ones(seq, kv_seq, dtype=torch.bool, device=query.device).tril(kv_seq - seq)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal and mask is None, enable_gqa=groups > 1)


def _blocked_is_faster(query: Tensor) -> bool:
    """PyTorch 2.13's own kernel reaches 160 GFLOP/s on a CPU in bfloat16, the products below 800 (12 heads, 1,024 patches)."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and not torch.is_grad_enabled()


def _products_are_faster(query: Tensor) -> bool:
    """Training in bfloat16 on a CPU: the backward pass of PyTorch 2.13's own kernel is several times slower there."""
    return query.device.type == "cpu" and query.dtype == torch.bfloat16 and torch.is_grad_enabled()


def _by_products(query: Tensor, key: Tensor, value: Tensor, causal: bool, mask: Tensor | None) -> Tensor:
    """The definition, by matrix products that autograd can follow; all scores at once."""
    seq, kv_seq, groups = query.shape[-2], key.shape[-2], query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)  # (batch, heads, seq, kv_seq)
    if causal and mask is None:
        mask = torch.ones(seq, kv_seq, dtype=torch.bool, device=query.device).tril(kv_seq - seq)
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return torch.softmax(scores, -1) @ value


def _blocked(query: Tensor, key: Tensor, value: Tensor, causal: bool) -> Tensor:
    """The same sum by plain matrix products, a head and a block of queries at a time; causal blocks skip what they hide."""
    batch, heads, seq, head_dim = query.shape
    kv_heads, kv_seq = key.shape[1], key.shape[2]
    out = torch.empty_like(query)
    query = query * head_dim**-0.5
    hidden = torch.ones(_BLOCK_ROWS, _BLOCK_ROWS, dtype=torch.bool).triu(1) if causal else None
    for b in range(batch):
        for h in range(heads):
            k, v = key[b, h * kv_heads // heads], value[b, h * kv_heads // heads]
            for start in range(0, seq, _BLOCK_ROWS):
                rows = min(_BLOCK_ROWS, seq - start)
                stop = kv_seq - seq + start + rows if causal else kv_seq
                scores = query[b, h, start : start + rows] @ k[:stop].t()  # (rows, stop)
                if hidden is not None:
                    scores[:, stop - rows :].masked_fill_(hidden[:rows, :rows], -torch.inf)
                torch.mm(torch.softmax(scores, -1), v[:stop], out=out[b, h, start : start + rows])
    return out
