"""Several examples in one row: attention that never reaches across them, and which examples share a row."""

from __future__ import annotations

import torch
from torch import Tensor

from smolvlm.nn.attention import attention
from smolvlm.nn.text import Attend, causal
from smolvlm.train.batching import Batch

# Up to here one masked call is quicker than a call an example; beyond, the mask and its scores grow quadratically.
_MASKED_UP_TO = 1024


def attend_within(batch: Batch) -> Attend:
    """Block-diagonal causal attention for the batch: each example sees itself alone.

    Rows of one example need no mask: padding stands on the right, where no real token looks.
    """
    if not batch.packed:
        return causal
    return _masked(batch) if batch.input_ids.shape[1] <= _MASKED_UP_TO else _by_span(batch)


def _masked(batch: Batch) -> Attend:
    same = batch.segment_ids[:, None, :, None] == batch.segment_ids[:, None, None, :]  # (rows, 1, seq, seq)
    mask = same.tril()  # padding attends to padding: a row of the mask with nothing at all would be NaN

    def attend(_layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return attention(query, key, value, causal=False, mask=mask)

    return attend


def _by_span(batch: Batch) -> Attend:
    def attend(_layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        out = torch.zeros_like(query)
        for row, start, stop in batch.spans:
            q, k, v = (x[row : row + 1, :, start:stop] for x in (query, key, value))
            out[row : row + 1, :, start:stop] = attention(q, k, v, causal=True)
        return out

    return attend
