"""The 256M model in training, with random weights: it fits, it steps, and it learns one batch by heart."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from smolvlm.checkpoint import tensor_shapes
from smolvlm.config import preset

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = {"full": 12e9, "qlora": 5e9}  # what it may take on a machine with 16 GB; measured: see benchmarks/results


def trained(method: str) -> int:
    """From the official layout alone: all of it, or rank x (rows + columns) of each matrix that gets an adapter."""
    from benchmarks.full_size_training import RATES

    shapes = tensor_shapes(preset("256m"))
    if method == "full":
        return sum(math.prod(shape) for shape in shapes.values())
    adapted = ("model.text_model.layers.", "model.connector.")
    sides = sum(sum(shape) for name, shape in shapes.items() if len(shape) == 2 and name.startswith(adapted))
    return sides * int(RATES["qlora"]["rank"])


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("method", ["full", "qlora"])
def test_256m_trains_and_learns_a_batch(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.full_size_training import TARGET_LOSS, Asked, measure

    runs = measure(method, Asked(size="256m", steps=10, batch_size=1))
    steps, repeated = runs["steps"], runs["repeated"]
    assert len(steps["losses"]) == 10
    for figure in (*steps["losses"], *steps["grad_norms"], *repeated["losses"]):
        assert math.isfinite(figure)
    assert all(norm > 0 for norm in steps["grad_norms"])
    # Random weights know nothing: the first loss is that of guessing among 49,280 tokens, give or take the head's noise.
    assert abs(steps["losses"][0] - math.log(49280)) < 1
    assert steps["peak_training_bytes"] <= steps["peak_bytes"] < MOST_BYTES[method]
    assert repeated["losses"][-1] < TARGET_LOSS
    assert steps["trained_parameters"] == trained(method)
