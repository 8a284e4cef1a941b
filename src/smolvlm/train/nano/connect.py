"""The connector between a trained tower and a trained decoder, by least squares.

Both are there before anything joins them. What the connector should do is known, so it is solved for and not learned:
the joint stage then begins with answers from pixels instead of noise that would undo the decoder.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from smolvlm.train.nano.dense import UNKNOWN
from smolvlm.train.nano.objective import Nano, NanoBatch

_EMPTY_WEIGHT = 0.1  # as in the dense losses: most cells hold nothing
_RIDGE = 1e-3  # of the mean diagonal


@torch.no_grad()
def fit_connector(nano: Nano, batches: Iterable[NanoBatch]) -> float:
    """Set the projection to the best linear map from folded patches to the oracle's tokens; the share of variance that it
    leaves unexplained."""
    projection = nano.model.model.connector.modality_projection["proj"]
    assert isinstance(projection, nn.Linear)
    weight = projection.weight
    inputs = weight.shape[1]
    gram = torch.zeros(inputs, inputs, dtype=torch.float64)
    cross = torch.zeros(inputs, weight.shape[0], dtype=torch.float64)
    energy = 0.0
    for batch in batches:
        known = batch.labels[..., 0] != UNKNOWN
        folded = nano.folded(batch)[known].double()
        target = nano.oracle_embeds(batch.labels.clamp(min=0))[known].double()
        there = (batch.labels[known] > 0).any(-1, keepdim=True)
        weighted = folded * torch.where(there, 1.0, _EMPTY_WEIGHT)
        gram += weighted.T @ folded
        cross += weighted.T @ target
        energy += float((torch.where(there, 1.0, _EMPTY_WEIGHT) * target**2).sum())
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(inputs, dtype=torch.float64)
    solution = torch.linalg.solve(gram + ridge, cross)
    weight.copy_(solution.T)
    explained = 2 * (solution * cross).sum() - (solution * (gram @ solution)).sum()
    return float(1 - explained / energy)
