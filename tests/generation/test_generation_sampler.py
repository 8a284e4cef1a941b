"""The sampler against transformers' processors, exact probabilities, seeds and time."""

from __future__ import annotations

import math
import time

import numpy as np
import pytest
from oracle import transformers

from smolvlm.errors import EngineError
from smolvlm.generation import GenerationParams, Sampler
from smolvlm.generation.filters import candidates

torch = pytest.importorskip("torch")
VOCAB = 200


def reference_probabilities(params: GenerationParams, prompt: list[int], generated: list[int], logits: np.ndarray):
    """transformers' own processors in its own order (GenerationMixin._get_logits_processor), in float64."""
    chain = transformers.LogitsProcessorList()
    if params.repetition_penalty != 1.0:
        chain.append(transformers.RepetitionPenaltyLogitsProcessor(params.repetition_penalty))
    if params.no_repeat_ngram_size:
        chain.append(transformers.NoRepeatNGramLogitsProcessor(params.no_repeat_ngram_size))
    chain.append(transformers.TemperatureLogitsWarper(params.temperature))
    if params.top_k:
        chain.append(transformers.TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        chain.append(transformers.TopPLogitsWarper(params.top_p))
    if params.min_p > 0.0:
        chain.append(transformers.MinPLogitsWarper(params.min_p))
    scores = chain(torch.tensor([prompt + generated]), torch.tensor(logits, dtype=torch.float64)[None])
    return torch.softmax(scores, -1)[0].numpy()


def our_probabilities(params: GenerationParams, prompt: list[int], generated: list[int], logits: np.ndarray):
    """The distribution that `Sampler._draw` draws from."""
    sampler = Sampler(params, prompt, len(logits))
    scores = sampler._processed(logits, generated, None)
    scaled = (scores - scores.max()) / np.float32(params.temperature)
    ids, weights = candidates(scaled, params.top_k, params.top_p, params.min_p)
    result = np.zeros(len(logits))
    result[np.arange(len(logits)) if ids is None else ids] = weights
    return result / result.sum()


SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.3},
    {"temperature": 1.0, "top_k": 1},
    {"temperature": 1.3, "top_k": 7},
    {"temperature": 1.0, "top_k": 1000},
    {"temperature": 1.0, "top_p": 0.9},
    {"temperature": 2.0, "top_p": 0.5},
    {"temperature": 1.0, "top_p": 1e-6},
    {"temperature": 1.0, "top_p": 0.99999},
    {"temperature": 1.0, "min_p": 0.05},
    {"temperature": 1.0, "min_p": 1.0},
    {"temperature": 0.8, "top_k": 20, "top_p": 0.8, "min_p": 0.1},
    {"temperature": 1.0, "repetition_penalty": 1.3},
    {"temperature": 1.0, "repetition_penalty": 0.7},
    {"temperature": 1.0, "no_repeat_ngram_size": 1},
    {"temperature": 1.0, "no_repeat_ngram_size": 2},
    {"temperature": 1.0, "no_repeat_ngram_size": 3},
    {"temperature": 0.7, "top_k": 30, "top_p": 0.9, "repetition_penalty": 1.2, "no_repeat_ngram_size": 2},
]


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_distribution_equals_transformers(setting: dict) -> None:
    rng = np.random.default_rng(5)
    params = GenerationParams(**setting)
    for trial in range(25):
        prompt = rng.integers(0, 8, size=int(rng.integers(3, 30))).tolist()  # few ids: n-grams do repeat
        generated = rng.integers(0, 8, size=int(rng.integers(0, 20))).tolist()
        logits = (rng.standard_normal(VOCAB) * (0.5 + trial % 5)).astype(np.float32)
        ours = our_probabilities(params, prompt, generated, logits)
        theirs = reference_probabilities(params, prompt, generated, logits)
        assert set(np.flatnonzero(ours)) == set(np.flatnonzero(theirs))
        # float32 scores of up to 20 carry 20 * 2**-23 = 2.4e-6; over the temperature 0.3, 8e-6 relative.
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-12)


def test_ties_at_the_border_of_top_k_are_all_kept() -> None:
    logits = np.array([3, 1, 2, 2, 2, 0], dtype=np.float32)
    params = GenerationParams(temperature=1.0, top_k=2)
    assert set(np.flatnonzero(our_probabilities(params, [], [], logits))) == {0, 2, 3, 4}
    assert set(np.flatnonzero(reference_probabilities(params, [0], [], logits))) == {0, 2, 3, 4}


def test_ties_at_the_border_of_top_p_go_to_the_lower_id() -> None:
    logits = np.zeros(10, dtype=np.float32)
    kept = np.flatnonzero(our_probabilities(GenerationParams(temperature=1.0, top_p=0.35), [], [], logits))
    assert kept.tolist() == [0, 1, 2, 3]  # 0.3 is less than 0.35, 0.4 reaches it


@pytest.mark.parametrize("spread", [0.001, 1.0, 30.0])
def test_top_p_by_bins_equals_a_plain_sort(spread: float) -> None:
    rng = np.random.default_rng(1)
    for top_p in (0.05, 0.5, 0.9, 0.999):
        scaled = (rng.standard_normal(5000) * spread).astype(np.float32)
        scaled -= scaled.max()
        ids, _ = candidates(scaled, 0, top_p, 0.0)
        order = np.argsort(-scaled, kind="stable")
        weights = np.exp(scaled.astype(np.float64))[order]
        before = np.cumsum(weights) - weights
        expected = order[before < top_p * weights.sum()]
        assert len(set(expected) ^ set(ids.tolist())) <= 1  # float32 weights may move the border by one token


@pytest.mark.parametrize("setting", [{}, {"top_k": 6}, {"top_p": 0.8}, {"min_p": 0.1, "temperature": 2.0}], ids=str)
@pytest.mark.slow
def test_frequencies_pass_a_chi_square_test(setting: dict) -> None:
    params = GenerationParams(**{"temperature": 1.0, "seed": 11, **setting})
    logits = np.array([2.0, 1.5, 1.0, 0.5, 0.0, -0.5, -1.0, -2.0, 0.2, 0.7], dtype=np.float32)
    expected = reference_probabilities(params, [0], [], logits)
    sampler, draws = Sampler(params, [0], 10), 20_000
    counts = np.bincount([sampler.next(logits, []).token_id for _ in range(draws)], minlength=10)
    assert not counts[expected == 0].any()
    wanted = draws * expected[expected > 0]
    chi_square = float((((counts[expected > 0] - wanted) ** 2) / wanted).sum())
    # The 99.99 % point of the chi-square distribution (Wilson-Hilferty; the normal's is 3.719). The seed is fixed, so
    # this cannot flake; a right sampler would fail for one seed in ten thousand.
    degrees = len(wanted) - 1
    assert chi_square < degrees * (1 - 2 / (9 * degrees) + 3.719 * math.sqrt(2 / (9 * degrees))) ** 3


def test_presence_and_frequency_follow_openai_on_generated_tokens_only() -> None:
    logits = np.array([1.0, 2.0, 3.0, 4.0], dtype=np.float32)
    params = GenerationParams(presence_penalty=0.5, frequency_penalty=0.25)
    scores = Sampler(params, [3, 3, 0], 4)._processed(logits, [2, 2, 1], None)
    # By hand: logit - count * frequency - presence; the prompt's 3 and 0 are untouched.
    np.testing.assert_allclose(scores, [1.0, 2.0 - 0.25 - 0.5, 3.0 - 2 * 0.25 - 0.5, 4.0], atol=1e-6)
    assert logits.tolist() == [1.0, 2.0, 3.0, 4.0]  # the engine's row is not written to


def test_greedy_takes_the_lowest_id_among_equals_and_ignores_the_filters() -> None:
    logits = np.array([0, 5, 5, 1], dtype=np.float32)
    assert Sampler(GenerationParams(), [], 4).next(logits, []).token_id == 1
    assert Sampler(GenerationParams(top_k=1, top_p=0.1, min_p=1.0), [], 4).next(logits, []).token_id == 1
    assert Sampler(GenerationParams(repetition_penalty=2.0), [1], 4).next(logits, []).token_id == 2


def test_seeds() -> None:
    rows = np.sin(1.7 * np.arange(40 * 300)).astype(np.float32).reshape(40, 300)

    def run(seed: int | None) -> list[int]:
        sampler, generated = Sampler(GenerationParams(temperature=1.0, seed=seed), [], 300), []
        for row in rows:
            generated.append(sampler.next(row, generated).token_id)
        return generated

    assert run(3) == run(3)
    assert run(3) != run(4)
    assert run(None) != run(None)  # equal by luck: less than (1/20)**40
    # PCG64's stream is fixed by NumPy's promise: these very ids, on every machine.
    assert run(3)[:8] == PINNED


PINNED = [25, 70, 240, 175, 28, 130, 142, 47]  # also by hand: inverse CDF of PCG64(3).random()


def test_a_tiny_temperature_is_greedy_and_a_huge_one_flat() -> None:
    logits = np.array([0.0, 1.0, 1.0001, -5.0], dtype=np.float32)
    for temperature in (1e-300, 1e-9):
        sampler = Sampler(GenerationParams(temperature=temperature, seed=0), [], 4)
        assert {sampler.next(logits, []).token_id for _ in range(50)} == {2}
    sampler = Sampler(GenerationParams(temperature=100.0, seed=0), [], 4)
    assert {sampler.next(logits, []).token_id for _ in range(200)} == {0, 1, 2, 3}


def test_logprobs_are_those_of_the_raw_logits() -> None:
    rng = np.random.default_rng(2)
    logits = (rng.standard_normal(500) * 4).astype(np.float32)
    params = GenerationParams(temperature=0.5, repetition_penalty=1.7, top_k=3, logprobs=5, seed=1)
    allowed = np.zeros(500, dtype=bool)
    allowed[100:200] = True
    sampled = Sampler(params, [1, 2], 500).next(logits, [], allowed)
    reference = torch.log_softmax(torch.tensor(logits, dtype=torch.float64), -1).numpy()
    assert 100 <= sampled.token_id < 200
    assert sampled.logprob == pytest.approx(reference[sampled.token_id], abs=1e-5)
    order = np.argsort(-reference)[:5]
    assert [i for i, _ in sampled.top] == order.tolist()
    np.testing.assert_allclose([value for _, value in sampled.top], reference[order], atol=1e-5)
    plain = Sampler(GenerationParams(), [], 500).next(logits, [])
    assert (plain.logprob, plain.top) == (None, ())
    alone = Sampler(GenerationParams(logprobs=0), [], 500).next(logits, [])
    assert alone.top == ()
    assert alone.logprob == pytest.approx(reference.max(), abs=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_broken_logits_are_an_error(value: float) -> None:
    logits = np.zeros(50, dtype=np.float32)
    logits[17] = value
    for params in (GenerationParams(), GenerationParams(temperature=1.0, top_p=0.5)):
        with pytest.raises(EngineError, match="logits"):
            Sampler(params, [], 50).next(logits, [])
    with pytest.raises(EngineError, match="logits"):
        Sampler(GenerationParams(), [], 50).next(np.full(50, -np.inf, dtype=np.float32), [])
    with pytest.raises(EngineError, match="shape"):
        Sampler(GenerationParams(), [], 50).next(np.zeros(49, dtype=np.float32), [])


def test_the_grammar_wins_over_the_ngram_ban() -> None:
    params = GenerationParams(no_repeat_ngram_size=1)
    logits = np.arange(6, dtype=np.float32)
    allowed = np.array([0, 1, 1, 0, 0, 0], dtype=bool)
    sampler = Sampler(params, [2], 6)
    assert sampler.next(logits, [], allowed).token_id == 1  # 2 is banned
    assert sampler.next(logits, [1], allowed).token_id == 2  # both are banned: the ban is waived
    with pytest.raises(EngineError, match="No token is left"):
        sampler.next(logits, [1], np.zeros(6, dtype=bool))


def test_bookkeeping_follows_a_shrinking_answer() -> None:
    params = GenerationParams(frequency_penalty=1.0, repetition_penalty=1.5, no_repeat_ngram_size=2)
    logits = np.linspace(1, 2, 8).astype(np.float32)
    sampler = Sampler(params, [0, 1], 8)
    sampler.next(logits, [4, 5, 4, 6])
    fresh = Sampler(params, [0, 1], 8)
    np.testing.assert_array_equal(sampler._processed(logits, [4, 5], None), fresh._processed(logits, [4, 5], None))


@pytest.mark.parametrize(
    ("setting", "limit_ms"),
    [
        ({}, 0.1),
        ({"temperature": 0.8, "top_k": 50}, 1.0),
        ({"temperature": 0.8, "top_p": 0.9}, 1.0),
        ({"temperature": 1.0, "top_k": 50, "top_p": 0.9, "min_p": 0.05}, 1.0),
    ],
    ids=str,
)
def test_it_is_quick_over_the_official_vocabulary(setting: dict, limit_ms: float) -> None:
    logits = (np.random.default_rng(0).standard_normal(49_280) * 4).astype(np.float32)
    sampler = Sampler(GenerationParams(seed=0, **setting), [1, 2, 3], 49_280)
    times = []
    for _ in range(60):
        start = time.perf_counter()
        sampler.next(logits, [])
        times.append(time.perf_counter() - start)
    # The best of many, and twice the limit: the machine that runs the tests may be busy with something else.
    assert min(times) * 1e3 < 2 * limit_ms
