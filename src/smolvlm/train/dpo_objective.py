"""Direct preference optimization: the sigmoid loss on pairs of answers, against a frozen reference.

Source: DPO (arXiv 2305.18290), equation 7; label smoothing as in its "conservative" form (E. Mitchell, 2023).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smolvlm.config import ProcessorConfig
from smolvlm.errors import TrainingError
from smolvlm.options.declare import check, option
from smolvlm.train.adapters import has_adapter, without_adapter
from smolvlm.train.batching import IGNORE, Batch, Example, collate
from smolvlm.train.objective import LossOutput


@dataclass(frozen=True, eq=False)
class PairExample:
    """A preferred and a rejected answer to the same conversation."""

    chosen: Example
    rejected: Example

    def __len__(self) -> int:
        return len(self.chosen) + len(self.rejected)


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Pairs side by side: rows 2i and 2i + 1 of `batch` are the preferred and the rejected answer of pair i."""

    batch: Batch
    weight_tokens: int  # pairs: each counts the same in the mean, however long its answers are

    @property
    def tokens(self) -> int:
        return self.batch.tokens

    def to(self, device: torch.device | str) -> PairBatch:
        return dataclasses.replace(self, batch=self.batch.to(device))


def collate_pairs(pairs: Sequence[PairExample], config: ProcessorConfig, pad_token_id: int) -> PairBatch:
    """Pairs -> a PairBatch, with nothing learned but the last answer of each conversation."""
    rows = [[last_answer_only(example)] for pair in pairs for example in (pair.chosen, pair.rejected)]
    return PairBatch(collate(rows, config, pad_token_id), len(pairs))


def last_answer_only(example: Example) -> Example:
    """Earlier answers of the conversation are the same on both sides: they are part of the question."""
    learned = np.flatnonzero(example.labels != IGNORE)
    breaks = np.flatnonzero(np.diff(learned) > 1)
    if not len(breaks):
        return example
    labels = example.labels.copy()
    labels[: learned[breaks[-1] + 1]] = IGNORE
    return dataclasses.replace(example, labels=labels)


class PairLogps(NamedTuple):
    """Summed log probabilities of the answers, each (pairs,) float32."""

    chosen: Tensor
    rejected: Tensor


def answer_logps(logits: Tensor, batch: Batch) -> Tensor:
    """(weight_tokens, vocab) at `batch.predicting()` -> the sum over each row's learned tokens, (rows,) float32."""
    logps = -F.cross_entropy(logits.float(), batch.targets(), reduction="none")
    rows = torch.arange(len(batch.labels), device=logits.device)[:, None].expand_as(batch.labels)[batch.predicting()]
    return torch.zeros(len(batch.labels), device=logits.device).index_add(0, rows, logps)


def dpo_loss(policy: PairLogps, reference: PairLogps, beta: float, label_smoothing: float = 0.0) -> tuple[Tensor, Tensor]:
    """(loss, reward margin) of each pair, both (pairs,).

    margin = beta * ((policy - reference of the chosen) - (the same of the rejected)); loss = -log sigmoid(margin), of
    which `label_smoothing` is paid for the opposite preference.
    """
    margin = beta * ((policy.chosen - reference.chosen) - (policy.rejected - reference.rejected))
    loss = -F.logsigmoid(margin) * (1 - label_smoothing) - F.logsigmoid(-margin) * label_smoothing
    return loss, margin


@dataclass(frozen=True)
class DPOLoss:
    """Raises TrainingError for a value out of its range."""

    beta: float = option(0.1, "How dearly distance from the reference is paid.", above=0, hint="0.05 to 0.5 is usual", metavar="X")
    label_smoothing: float = option(0.0, "Share of pairs that may be the wrong way round.", least=0, below=0.5, metavar="X")

    def __post_init__(self) -> None:
        check(self, TrainingError)


class DPOObjective:
    """The mean sigmoid loss over pairs. `reference` is a frozen graph, or None: the model itself without its adapter.

    Logs the rewards (beta times the gain over the reference), their margin, and how often the margin is positive.
    Raises TrainingError for beta or label_smoothing out of range.
    """

    def __init__(self, reference: nn.Module | None = None, *, beta: float = 0.1, label_smoothing: float = 0.0) -> None:
        checked = DPOLoss(beta, label_smoothing)
        self.beta, self.label_smoothing = checked.beta, checked.label_smoothing
        self.reference = None if reference is None else reference.requires_grad_(False).eval()

    def __call__(self, model: nn.Module, batch: PairBatch) -> LossOutput:
        reference = self._reference_logps(model, batch)
        policy = _pairs(model, batch)
        loss, margin = dpo_loss(policy, reference, self.beta, self.label_smoothing)
        metrics = {
            "rewards/chosen": self.beta * (policy.chosen - reference.chosen).detach().mean(),
            "rewards/rejected": self.beta * (policy.rejected - reference.rejected).detach().mean(),
            "rewards/margin": margin.detach().mean(),
            "rewards/accuracy": (margin > 0).float().mean(),
        }
        return LossOutput(loss.mean(), batch.weight_tokens, metrics)

    @torch.no_grad()
    def _reference_logps(self, model: nn.Module, batch: PairBatch) -> PairLogps:
        if self.reference is not None:
            return _pairs(self.reference.to(batch.batch.input_ids.device), batch)
        assert any(has_adapter(module) for module in model.modules()), "without a reference the model needs an adapter"
        with without_adapter(model):
            return _pairs(model, batch)


def _pairs(model: nn.Module, batch: PairBatch) -> PairLogps:
    logps = answer_logps(model(batch.batch).logits, batch.batch)
    return PairLogps(logps[0::2], logps[1::2])
