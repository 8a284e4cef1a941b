"""Distillation from a teacher in the same process: its distribution over the next token, and its hidden states.

Sources: knowledge distillation (arXiv 1503.02531: temperature, and its square as the weight); hidden states through a
learned projection (FitNets, arXiv 1412.6550), here of the layer below the head, compared by direction.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smolvlm.errors import TrainingError
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.options.declare import check, option
from smolvlm.train.batching import Batch
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.objective import LossOutput


@dataclass(frozen=True)
class DistillWeights:
    """loss = answers * cross entropy + logits * T^2 * KL(teacher || student) + hidden * (1 - cosine).

    Each is a mean over the learned tokens. A weight of 0 leaves its term out.
    """

    answers: float = option(0.5, "Weight of the answers.", least=0)
    logits: float = option(0.5, "Weight of the teacher's distribution.", least=0)
    hidden: float = option(0.0, "Weight of the hidden states.", least=0)
    temperature: float = option(2.0, "Of both distributions.", above=0, hint="1 to 4 is usual")

    def __post_init__(self) -> None:
        check(self, TrainingError)
        if not self.answers + self.logits + self.hidden > 0:
            raise TrainingError("all weights of the loss are 0: nothing would be learned; raise one of them.")


class DistillOutput(NamedTuple):
    """As `GraphOutput`; projected: (weight_tokens, teacher_dim), the hidden states as the teacher might have them."""

    logits: Tensor
    hidden_states: Tensor
    projected: Tensor


class ProjectedGraph(TrainingGraph):
    """A student with a linear map from its hidden states to the teacher's. The map is trained along and never saved
    with the model: `net` is the student alone."""

    def __init__(self, net: SmolVLMForConditionalGeneration, teacher_dim: int, *, seed: int = 0, neftune_alpha: float = 0.0) -> None:
        super().__init__(net, neftune_alpha=neftune_alpha)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.projection = nn.Linear(net.config.text.hidden_size, teacher_dim, bias=False)

    def forward(self, batch: Batch) -> DistillOutput:  # type: ignore[override]
        logits, hidden_states = super().forward(batch)
        return DistillOutput(logits, hidden_states, self.projection(hidden_states[batch.predicting()]))


class DistillObjective:
    """Learns from `teacher`, a frozen graph with the student's vocabulary, at the positions that predict a learned token.

    The student's graph must be a `ProjectedGraph` where `weights.hidden` is not 0.
    """

    def __init__(self, teacher: nn.Module, weights: DistillWeights | None = None) -> None:
        self.teacher = teacher.requires_grad_(False).eval()
        self.weights = weights or DistillWeights()

    def __call__(self, model: nn.Module, batch: Batch) -> LossOutput:
        weights, count = self.weights, max(batch.weight_tokens, 1)
        with torch.no_grad():
            teacher = self.teacher.to(batch.input_ids.device)(batch)
        student = model(batch)
        terms = {"answers": F.cross_entropy(student.logits.float(), batch.targets(), reduction="sum") / count}
        if weights.logits:
            terms["logits"] = soft_cross_entropy(student.logits, teacher.logits, weights.temperature) / count
        if weights.hidden:
            there = teacher.hidden_states[batch.predicting()].float()
            cosine = F.cosine_similarity(student.projected.float(), there, dim=-1)
            terms["hidden"] = (1 - cosine).sum() / count
        loss = torch.stack([getattr(weights, name) * term for name, term in terms.items()]).sum()
        return LossOutput(loss, batch.weight_tokens, {f"loss/{name}": term.detach() for name, term in terms.items()})


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """T^2 * KL(teacher || student) of the distributions softened by T, summed over the rows of (rows, vocab)."""
    student = F.log_softmax(student_logits.float() / temperature, -1)
    teacher = F.log_softmax(teacher_logits.float() / temperature, -1)
    return temperature**2 * F.kl_div(student, teacher, reduction="sum", log_target=True)
