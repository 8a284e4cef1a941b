"""Distillation in one process: each term against NumPy in float64, and a student that learns its teacher."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.checkpoint.random import TINY
from smolvlm.config import load_configs
from smolvlm.errors import TrainingError
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.weights import load_model
from smolvlm.train.batching import IGNORE, Batch, Example, collate
from smolvlm.train.distill_objective import DistillObjective, DistillWeights, ProjectedGraph, soft_cross_entropy
from smolvlm.train.graph import TrainingGraph

SIDE = 64


def student() -> SmolVLMForConditionalGeneration:
    torch.manual_seed(3)
    return SmolVLMForConditionalGeneration(replace(TINY, text=replace(TINY.text, hidden_size=64, num_hidden_layers=1)))


@pytest.fixture(scope="module")
def teacher(tiny_checkpoint: Path) -> TrainingGraph:
    return TrainingGraph(load_model(tiny_checkpoint, load_configs(tiny_checkpoint)[0]))


@pytest.fixture(scope="module")
def batch(tiny_checkpoint: Path) -> Batch:
    config, processor = load_configs(tiny_checkpoint)
    rng = np.random.default_rng(0)
    picture = [49189, 49152, *[49190] * 4, 49189]
    first = np.array([*picture, 5, 6, 7, 8, 49279])
    second = np.array([11, 12, 13, 14, 15, 49279])
    examples = [
        Example(first, np.where(np.arange(len(first)) < 9, IGNORE, first), rng.integers(0, 256, (1, SIDE, SIDE, 3), np.uint8)),
        Example(second, np.where(np.arange(len(second)) < 2, IGNORE, second), np.zeros((0, SIDE, SIDE, 3), np.uint8)),
    ]
    return collate([[e] for e in examples], processor, config.text.pad_token_id)


def log_softmax(x: np.ndarray) -> np.ndarray:
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


def test_the_soft_term_by_hand() -> None:
    """T = 1, two tokens: teacher (3/4, 1/4), student (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 0.130812..."""
    student_logits, teacher_logits = torch.zeros(1, 2), torch.tensor([[np.log(3.0), 0.0]])
    assert soft_cross_entropy(student_logits, teacher_logits, 1.0).item() == pytest.approx(0.1308120, abs=1e-6)
    # T = 2 softens the odds 3 : 1 to sqrt(3) : 1, and the square of 2 weighs it
    p = 3**0.5 / (1 + 3**0.5)
    by_hand = 4 * (p * np.log(2 * p) + (1 - p) * np.log(2 * (1 - p)))
    assert soft_cross_entropy(student_logits, teacher_logits, 2.0).item() == pytest.approx(by_hand, abs=1e-6)
    assert soft_cross_entropy(teacher_logits, teacher_logits, 2.0).item() == pytest.approx(0, abs=1e-6)


def test_every_term_equals_float64_numpy(teacher: TrainingGraph, batch: Batch) -> None:
    weights = DistillWeights(answers=0.3, logits=0.5, hidden=0.7, temperature=1.5)
    model = ProjectedGraph(student(), teacher_dim=128)
    out = DistillObjective(teacher, weights)(model, batch)
    with torch.no_grad():
        ours, theirs = model(batch), teacher(batch)
    s, t = ours.logits.double().numpy(), theirs.logits.double().numpy()
    targets, n = batch.targets().numpy(), batch.weight_tokens
    assert n == len(targets) == 3 + 4
    answers = -log_softmax(s)[np.arange(n), targets].mean()
    ls, lt = log_softmax(s / 1.5), log_softmax(t / 1.5)
    logits = 1.5**2 * (np.exp(lt) * (lt - ls)).sum(-1).mean()
    there = theirs.hidden_states[batch.predicting()].double().numpy()
    here = (ours.hidden_states[batch.predicting()].double() @ model.projection.weight.double().T).detach().numpy()
    cosine = (here * there).sum(-1) / (np.linalg.norm(here, axis=-1) * np.linalg.norm(there, axis=-1))
    assert float(out.metrics["loss/answers"]) == pytest.approx(answers, abs=1e-4)
    assert float(out.metrics["loss/logits"]) == pytest.approx(logits, abs=1e-4)
    assert float(out.metrics["loss/hidden"]) == pytest.approx((1 - cosine).mean(), abs=1e-5)
    assert out.loss.item() == pytest.approx(0.3 * answers + 0.5 * logits + 0.7 * (1 - cosine).mean(), abs=1e-4)


def test_a_weight_of_zero_leaves_its_term_out(teacher: TrainingGraph, batch: Batch) -> None:
    out = DistillObjective(teacher, DistillWeights(answers=1, logits=0, hidden=0))(TrainingGraph(student()), batch)
    assert set(out.metrics) == {"loss/answers"}
    assert out.loss.item() == pytest.approx(float(out.metrics["loss/answers"]))


@pytest.mark.slow
def test_the_student_comes_near_and_the_teacher_stays(teacher: TrainingGraph, batch: Batch) -> None:
    before = {name: p.detach().clone() for name, p in teacher.named_parameters()}
    model = ProjectedGraph(student(), teacher_dim=128)
    objective = DistillObjective(teacher, DistillWeights(answers=0, logits=1, hidden=1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    first = None
    for _ in range(25):
        optimizer.zero_grad()
        out = objective(model, batch)
        out.loss.backward()
        optimizer.step()
        first = first or out
    assert first is not None
    assert float(out.metrics["loss/logits"]) < 0.5 * float(first.metrics["loss/logits"])
    assert float(out.metrics["loss/hidden"]) < 0.5 * float(first.metrics["loss/hidden"])
    assert all(torch.equal(p, before[name]) for name, p in teacher.named_parameters())
    assert "projection.weight" not in model.net.state_dict()


@pytest.mark.parametrize("options", [{"answers": -1}, {"temperature": 0}, {"answers": 0, "logits": 0}, {"hidden": float("inf")}])
def test_weights_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(TrainingError):
        DistillWeights(**options)
