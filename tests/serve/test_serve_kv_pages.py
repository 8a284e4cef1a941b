"""The KV cache's budget against the pages that the engine says it uses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_serve_scheduler import FREE, Bench

import smolvlm
from smolvlm import SmolVLM
from smolvlm.engines.base import Engine
from smolvlm.generation import GenerationParams
from smolvlm.inference.kv_pages import KvPages
from smolvlm.inference.prefix_cache import MOST_KEPT


@pytest.fixture(params=["native", pytest.param("torch", marks=pytest.mark.slow)])
def own(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> SmolVLM:
    """A model whose engine holds no sequence but the test's; one thread is the quickest for passes this small."""
    monkeypatch.setenv("SMOLVLM_THREADS", "1")
    return smolvlm.load("nano", engine=request.param)


def test_a_page_has_the_tokens_that_the_engine_says(own: SmolVLM) -> None:
    engine = own.engine
    page = engine.kv_page_tokens
    seq = engine.open(4 * page)
    engine.prefill(seq, [5] * page)
    assert engine.kv_pages == 1
    engine.decode([seq], [5])
    assert engine.kv_pages == 2
    other = engine.fork(seq)
    engine.rewind(other, page)
    engine.prefill(other, [6])
    assert engine.kv_pages == 3  # the first page is shared


class Most:
    """The engine's pages, looked at after every call that can take some."""

    def __init__(self, bench: Bench) -> None:
        engine = bench.model.engine
        self.pages = 0
        watched: Any = bench.engine
        for name in ("prefill", "decode", "fork"):
            setattr(watched, name, self._looking(getattr(watched, name), engine))

    def _looking(self, call: Any, engine: Engine) -> Any:
        def looked(*args: Any, **options: Any) -> Any:
            made = call(*args, **options)
            self.pages = max(self.pages, engine.kv_pages)
            return made

        return looked


def test_short_questions_stay_within_the_budget(own: SmolVLM) -> None:
    """150 sequences of 20 tokens: 40 pages hold 40 of them, not 130."""
    bench = Bench(own, kv_tokens=40 * 64, max_waiting=1000)
    most = Most(bench)
    bench.run(*(bench.job(None, f"{i}?", max_new_tokens=2, **FREE) for i in range(150)))
    engine = own.engine
    assert most.pages <= 40
    assert engine.kv_pages == bench.scheduler._pages.total == len(bench.scheduler._prefixes) == 40


def test_the_number_of_kept_sequences_is_bounded(own: SmolVLM) -> None:
    bench = Bench(own, kv_tokens=10**6, max_waiting=1000)
    bench.run(*(bench.job(None, f"{i}?", max_new_tokens=2, **FREE) for i in range(MOST_KEPT + 20)))
    assert len(bench.scheduler._prefixes) == MOST_KEPT
    assert own.engine.kv_pages == MOST_KEPT == len(bench.engine.open_sequences)


def test_pages_that_forks_share_count_once(own: SmolVLM) -> None:
    """Twenty questions on one long text hold it once; the budget would not hold it three times."""
    bench = Bench(own, kv_tokens=64 * 64, max_waiting=1000, max_running=1)
    most = Most(bench)
    story = "word " * 1200
    bench.run(*(bench.job(None, f"{story} {i}?", max_new_tokens=2, **FREE) for i in range(20)))
    engine = own.engine
    assert len(bench.scheduler._prefixes) == 20
    assert engine.kv_pages == bench.scheduler._pages.total <= 64
    assert most.pages <= 64
    assert sum(size for name, size in bench.engine.calls if name == "prefill") < 2 * 1300


def test_choices_of_one_prompt_stay_within_the_budget(own: SmolVLM) -> None:
    """Prompts with eight choices each, beside single ones: what runs, what is promised and what is kept fit together."""
    bench = Bench(own, kv_tokens=30 * 64, max_waiting=1000, max_running=32)
    most = Most(bench)
    jobs = []
    for i in range(12):
        job, updates = bench.job(None, f"Question {i}: " + "word " * (i * 5), max_new_tokens=70, **FREE)
        if i % 3 == 0:
            params = GenerationParams(max_new_tokens=70, temperature=1, seed=i, **FREE)
            job.params, job.grammars = (params,) * 8, (None,) * 8
        jobs.append((job, updates))
    bench.run(*jobs)
    assert 20 < most.pages <= 30
    assert own.engine.kv_pages == bench.scheduler._pages.total <= 30


STEPS = st.lists(st.tuples(st.sampled_from("ofgsc"), st.integers(0, 5), st.integers(1, 200)), max_size=40)


@given(STEPS)
def test_counting_in_any_order(nano: SmolVLM, steps: list[tuple[str, int, int]]) -> None:
    """Any order of opening, forking, settling and closing: each sequence has its own pages, and nothing is left at the end."""
    counted = KvPages(nano.engine)
    live: dict[int, int] = {}  # a sequence -> its tokens
    for number, (step, which, tokens) in enumerate(steps):
        seq = sorted(live)[which % len(live)] if live else None
        if step == "o":
            counted.begin(number, tokens)
            live[number] = tokens
        elif step == "f" and seq is not None:
            keep = min(tokens, live[seq])
            counted.begin(number, keep + tokens, seq, keep)
            live[number] = keep + tokens
        elif step == "s" and seq is not None:
            live[seq] = min(live[seq], tokens)
            counted.settle(seq, live[seq])
        elif step == "c" and seq is not None:
            counted.end(seq)
            del live[seq]
        assert counted.total <= sum(-(-length // 64) for length in live.values())
        assert counted.of(live) == counted.total
        for seq, length in live.items():
            assert counted.of([seq]) == -(-length // 64)
    for seq in list(live):
        counted.end(seq)
    assert counted.total == 0


def test_kept_ids_are_small(own: SmolVLM) -> None:
    """Four bytes a token, not an object each."""
    bench = Bench(own)
    bench.run(bench.job(None, "Hi.", max_new_tokens=3, **FREE))
    (held,) = bench.scheduler._prefixes._held.values()
    assert held.ids.dtype == np.int32
