"""Drawing without working the nucleus out, against the set that the filters define; what starting up imports."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from smolvlm.generation import GenerationParams, Sampler
from smolvlm.generation.filters import candidates, draw, pick


def scores(spread: float, size: int = 300, ties: bool = False) -> np.ndarray:
    values = np.random.default_rng(3).standard_normal(size).astype(np.float32) * np.float32(spread)
    return (np.round(values) if ties else values) - values.max()


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("spread", [0.01, 1.0, 8.0])
@pytest.mark.parametrize(("top_p", "min_p"), [(0.9, 0.0), (0.3, 0.0), (0.01, 0.0), (0.8, 0.2), (1.0, 0.1), (1e-6, 0.0)])
def test_what_is_drawn_is_what_the_filters_leave(spread: float, ties: bool, top_p: float, min_p: float) -> None:
    scaled = scores(spread, ties=ties)
    scaled -= scaled.max()
    ids, weights = candidates(scaled, 0, top_p, min_p)
    assert ids is not None
    random, draws = np.random.default_rng(11), 4000
    counts = np.bincount([draw(scaled, 0, top_p, min_p, random.random) for _ in range(draws)], minlength=len(scaled))
    assert set(np.flatnonzero(counts)) <= set(ids.tolist())
    wanted = np.zeros(len(scaled))
    wanted[ids] = weights / weights.sum() * draws
    # Five standard deviations of a binomial count: with at most 300 counts a right sampler fails once in 10,000 seeds.
    assert (np.abs(counts - wanted) <= 5 * np.sqrt(np.maximum(wanted, 1.0)) + 1).all()


def test_pick_takes_each_share_of_the_line() -> None:
    """Against a running sum over all weights, beyond one block, with weights of zero at both ends."""
    weights = np.random.default_rng(5).random(1000).astype(np.float32)
    weights[:3] = weights[-300:] = weights[500:600] = 0
    running = np.cumsum(weights.astype(np.float64))
    for share in (0.0, 1e-9, 0.25, 0.5, 0.999, 1 - 1e-12):
        expected = int(np.searchsorted(running, share * running[-1], side="right"))
        assert pick(weights, share) == expected
        assert weights[pick(weights, share)] > 0
    assert pick(weights, 1.0) == 699  # the last that is possible


def test_the_seed_decides() -> None:
    rows = np.random.default_rng(0).standard_normal((30, 5000)).astype(np.float32)
    params = GenerationParams(temperature=1.0, top_p=0.7, seed=4)
    runs = []
    for _ in range(2):
        sampler = Sampler(params, [], 5000)
        runs.append([sampler.next(row, []).token_id for row in rows])
    assert runs[0] == runs[1]


def test_penalties_follow_an_answer_past_the_first_arrays() -> None:
    """A thousand different tokens, some of them twice, against the formula over all of them."""
    params = GenerationParams(repetition_penalty=1.5, presence_penalty=0.5, frequency_penalty=0.25)
    logits = np.random.default_rng(2).standard_normal(2000).astype(np.float32)
    prompt, generated = list(range(400)), [*range(300, 1000), *range(300, 330)]
    sampler = Sampler(params, prompt, 2000)
    for length in range(0, len(generated), 97):
        sampler._processed(logits, generated[:length], None)
    expected = logits.astype(np.float64)
    for token in set(prompt) | set(generated):
        expected[token] = expected[token] * 1.5 if expected[token] < 0 else expected[token] / 1.5
    for token in set(generated):
        expected[token] -= 0.5 + 0.25 * generated.count(token)
    np.testing.assert_allclose(sampler._processed(logits, generated, None), expected, atol=1e-5)


@pytest.mark.parametrize("statement", ["import smolvlm", "import smolvlm; smolvlm.load", "import smolvlm.cli.main"])
def test_starting_up_imports_nothing_heavy(statement: str) -> None:
    """What makes a start slow, instead of the clock: the mark is 0.3 s for the package."""
    heavy = "torch", "matplotlib", "transformers", "pandas", "scipy", "yaml", "peft"
    code = f"{statement}\nimport sys\nprint(*[name for name in {heavy!r} if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.split() == []


def test_the_package_alone_is_nearly_nothing() -> None:
    code = "import smolvlm, sys\nprint(*[name for name in ('numpy', 'av', 'PIL', 'tokenizers', 'httpx') if name in sys.modules])"
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert printed.stdout.split() == []
