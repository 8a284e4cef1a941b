"""DPO: the loss against float64 by hand, log probabilities against a slow sum, the frozen reference, and learning."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.config import load_configs
from smolvlm.errors import TrainingError
from smolvlm.nn.weights import load_model
from smolvlm.train.adapters import AdapterOptions, adapter_parameters, add_adapter
from smolvlm.train.batching import IGNORE, Example
from smolvlm.train.dpo_objective import (
    DPOObjective,
    PairBatch,
    PairExample,
    PairLogps,
    answer_logps,
    collate_pairs,
    dpo_loss,
    last_answer_only,
)
from smolvlm.train.graph import TrainingGraph

SIDE = 64


def example(prompt: list[int], answer: list[int], picture: bool = False, seed: int = 0) -> Example:
    tiles = np.zeros((0, SIDE, SIDE, 3), np.uint8)
    if picture:
        prompt = [49189, 49152, *[49190] * 4, 49189, *prompt]
        tiles = np.random.default_rng(seed).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    labels = [IGNORE] * len(prompt) + answer
    return Example(np.array(prompt + answer), np.array(labels), tiles)


def graph(folder: Path, seed: int | None = None) -> TrainingGraph:
    net = load_model(folder, load_configs(folder)[0])
    if seed is not None:
        add_adapter(net, AdapterOptions(rank=4), seed=seed)
    return TrainingGraph(net)


@pytest.fixture(scope="module")
def pairs(tiny_checkpoint: Path) -> PairBatch:
    made = [
        PairExample(example([5, 6, 7], [8, 9, 49279], True), example([5, 6, 7], [10, 49279], True)),
        PairExample(example([11, 12], [13, 14, 15, 16, 49279]), example([11, 12], [17, 49279])),
    ]
    config, processor = load_configs(tiny_checkpoint)
    return collate_pairs(made, processor, config.text.pad_token_id)


def test_the_loss_by_hand() -> None:
    """beta 0.1: margins 0.1 * ((-10 + 12) - (-20 + 19)) = 0.3 and 0.1 * ((-3 + 2) - (-4 + 8)) = -0.5."""
    policy = PairLogps(torch.tensor([-10.0, -3.0]), torch.tensor([-20.0, -4.0]))
    reference = PairLogps(torch.tensor([-12.0, -2.0]), torch.tensor([-19.0, -8.0]))
    loss, margin = dpo_loss(policy, reference, beta=0.1)
    torch.testing.assert_close(margin, torch.tensor([0.3, -0.5]))
    wanted = [math.log1p(math.exp(-0.3)), math.log1p(math.exp(0.5))]  # 0.554355..., 0.974077...
    assert wanted == pytest.approx([0.5543552445, 0.9740769842])
    torch.testing.assert_close(loss, torch.tensor(wanted))
    smoothed, _ = dpo_loss(policy, reference, beta=0.1, label_smoothing=0.25)
    # the opposite preference costs log(1 + e^m): a quarter of 0.854355 and of 0.474077
    torch.testing.assert_close(smoothed, torch.tensor([0.75 * wanted[0] + 0.25 * 0.8543552445, 0.75 * wanted[1] + 0.25 * 0.4740769842]))


def test_answer_logps_equal_a_slow_sum(tiny_checkpoint: Path, pairs: PairBatch) -> None:
    """Each row alone, without padding, through the plain forward, summed in float64 one token at a time."""
    model, batch = graph(tiny_checkpoint), pairs.batch
    with torch.no_grad():
        got = answer_logps(model(batch).logits, batch)
        for row in range(4):
            real = batch.segment_ids[row] > 0
            ids, labels = batch.input_ids[row][real], batch.labels[row][real]
            pixels = batch.pixel_values[row : row + 1] if batch.pixel_values is not None and row < 2 else None
            logits = model.net(ids[None], pixels)[0].double()
            total = sum(float(torch.log_softmax(logits[i - 1], -1)[ids[i]]) for i in range(len(ids)) if labels[i] != IGNORE)
            # float32 logits of magnitude about 1 over a handful of tokens
            assert float(got[row]) == pytest.approx(total, abs=1e-4)


def test_the_whole_objective_in_float64(tiny_checkpoint: Path, pairs: PairBatch) -> None:
    model, reference = graph(tiny_checkpoint), graph(tiny_checkpoint)
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.mul_(1.3)
    out = DPOObjective(reference, beta=0.5)(model, pairs)
    with torch.no_grad():
        ours, theirs = (answer_logps(m(pairs.batch).logits, pairs.batch).double().tolist() for m in (model, reference))
    gains = [a - b for a, b in zip(ours, theirs, strict=True)]
    margins = [0.5 * (gains[0] - gains[1]), 0.5 * (gains[2] - gains[3])]
    assert out.loss.item() == pytest.approx(sum(math.log1p(math.exp(-m)) for m in margins) / 2, abs=1e-5)
    assert out.weight_tokens == 2
    assert float(out.metrics["rewards/margin"]) == pytest.approx(sum(margins) / 2, abs=1e-5)
    assert float(out.metrics["rewards/accuracy"]) == sum(m > 0 for m in margins) / 2
    assert float(out.metrics["rewards/chosen"]) == pytest.approx(0.25 * (gains[0] + gains[2]), abs=1e-5)
    out.loss.backward()
    assert all(p.grad is None for p in reference.parameters())


def test_the_reference_is_the_model_without_its_adapter(tiny_checkpoint: Path, pairs: PairBatch) -> None:
    """A fresh adapter: margin 0, loss log 2. A trained one: as with a frozen copy of the base."""
    model = graph(tiny_checkpoint, seed=0)
    objective = DPOObjective(beta=0.3)
    assert objective(model, pairs).loss.item() == pytest.approx(math.log(2), abs=1e-6)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(0.01)
    switched = objective(model, pairs)
    copied = DPOObjective(graph(tiny_checkpoint), beta=0.3)(model, pairs)
    assert abs(switched.loss.item() - math.log(2)) > 1e-4
    assert switched.loss.item() == pytest.approx(copied.loss.item(), abs=1e-5)


def test_it_learns_the_preference_and_leaves_the_base_alone(tiny_checkpoint: Path, pairs: PairBatch) -> None:
    model = graph(tiny_checkpoint, seed=0)
    frozen = {name: p.detach().clone() for name, p in model.named_parameters() if not p.requires_grad}
    objective = DPOObjective(beta=0.5)
    optimizer = torch.optim.AdamW(adapter_parameters(model).values(), lr=5e-3)
    for _ in range(15):
        optimizer.zero_grad()
        out = objective(model, pairs)
        out.loss.backward()
        optimizer.step()
    assert out.loss < 0.2
    assert out.metrics["rewards/accuracy"] == 1
    for name, parameter in model.named_parameters():
        assert name not in frozen or torch.equal(parameter, frozen[name]), name


def test_only_the_last_answer_counts() -> None:
    labels = np.array([IGNORE, 3, 4, IGNORE, IGNORE, 7, 8])
    ids = np.array([1, 3, 4, 5, 6, 7, 8])
    got = last_answer_only(Example(ids, labels, np.zeros((0, SIDE, SIDE, 3), np.uint8)))
    assert got.labels.tolist() == [IGNORE] * 5 + [7, 8]
    assert labels[1] == 3, "the original is left alone"


@pytest.mark.parametrize("options", [{"beta": 0}, {"beta": float("nan")}, {"label_smoothing": 0.5}])
def test_options_out_of_range(options: dict[str, float]) -> None:
    with pytest.raises(TrainingError, match=next(iter(options))):
        DPOObjective(**options)
