"""What is minimized. An objective sees a model and a batch; everything else is the loop's business."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor, nn
from torch.nn import functional as F

from smolvlm.train.batching import Batch


@dataclass(frozen=True, eq=False)
class LossOutput:
    """loss: a float32 scalar with gradients, the mean over the `weight_tokens` units of the batch.

    The loop weighs it by `weight_tokens` (equal to `batch.weight_tokens`) against the other batches of the step, on
    this process and the others. metrics: plain figures or detached scalars, logged as the same weighted mean.
    """

    loss: Tensor
    weight_tokens: int
    metrics: Mapping[str, float | Tensor] = field(default_factory=dict)


class Objective(Protocol):
    """`model` is a `graph.TrainingGraph`, possibly wrapped by DDP or FSDP: call it, do not look inside."""

    def __call__(self, model: nn.Module, batch: Any) -> LossOutput:
        """The mean loss of one batch, whose tensors are on the model's device."""


class SFTObjective:
    """Cross entropy of the learned tokens, in float32, with logits at the positions that predict one and nowhere else."""

    def __call__(self, model: nn.Module, batch: Batch) -> LossOutput:
        logits = model(batch).logits  # (weight_tokens, vocab)
        loss = F.cross_entropy(logits.float(), batch.targets(), reduction="sum") / max(batch.weight_tokens, 1)
        return LossOutput(loss, batch.weight_tokens)
