"""Timings tell the truth: the clock starts at the call, each lap holds its own work, and each answer has its own first token."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest

import smolvlm
from smolvlm import SmolVLM

SIGN = Path(__file__).parents[2] / "examples" / "media" / "nano" / "sign.png"
COSTS = {"encode_images": 10.0, "prefill": 100.0, "decode": 1000.0}
OPEN_S = 1.0


class CountingClock:
    """Stands still but for what is charged to it."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


class SlowFile(io.BytesIO):
    """A file whose first look costs a second of the counting clock."""

    def __init__(self, clock: CountingClock) -> None:
        super().__init__(SIGN.read_bytes())
        self._clock, self._open = clock, False

    def read(self, *args: Any) -> bytes:
        if not self._open:
            self._open = True
            self._clock.now += OPEN_S
        return super().read(*args)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> CountingClock:
    counting = CountingClock()
    monkeypatch.setattr("smolvlm.inference.timing.time", counting)
    return counting


@pytest.fixture
def nano(clock: CountingClock, monkeypatch: pytest.MonkeyPatch) -> SmolVLM:
    model = smolvlm.load("nano")

    def charged(name: str, call: Any) -> Any:
        def charging(*args: Any, **kwargs: Any) -> Any:
            clock.now += COSTS[name]
            return call(*args, **kwargs)

        return charging

    for name in COSTS:
        monkeypatch.setattr(model.engine, name, charged(name, getattr(model.engine, name)))
    return model


FREE = {"loop_guard": False, "ignore_eos": True}


def test_each_lap_holds_its_own_work(nano: SmolVLM, clock: CountingClock) -> None:
    clock.now = 5000.0
    timings = nano.ask(SlowFile(clock), "What does the sign say?", max_new_tokens=3, **FREE).timings
    assert (timings.media_s, timings.encode_s, timings.prefill_s) == (1.0, 10.0, 100.0)
    assert (timings.first_token_s, timings.total_s) == (111.0, 2111.0)  # two decode steps after the first token


def test_each_answer_of_many_has_its_own(nano: SmolVLM, clock: CountingClock) -> None:
    """Two prompts are opened, read one after the other, then decoded together; the short answer ends first."""
    one, two = nano.ask_many([(SlowFile(clock), "What does the sign say?"), (None, "Hello")], max_new_tokens=3, **FREE)
    assert (one.timings.media_s, one.timings.encode_s, one.timings.prefill_s) == (1.0, 10.0, 100.0)
    assert (two.timings.media_s, two.timings.encode_s, two.timings.prefill_s) == (0.0, 0.0, 100.0)
    assert one.timings.first_token_s == two.timings.first_token_s == 211.0  # from the call: the other's prompt is in it
    assert one.timings.total_s == two.timings.total_s == 2211.0


def test_an_answer_that_ends_early_says_so(nano: SmolVLM, clock: CountingClock) -> None:
    short, long = nano.ask_many([(SIGN, "What does the sign say?"), (None, "Hello")], max_new_tokens=40)
    assert short.finish_reason == "stop"
    steps = short.usage.completion_tokens
    assert short.timings.total_s == pytest.approx(210.0 + 1000.0 * steps, abs=1000.0)
    assert (long.timings.total_s > short.timings.total_s) == (long.usage.completion_tokens > short.usage.completion_tokens)


def test_a_sessions_second_question_has_no_media_to_read(nano: SmolVLM, clock: CountingClock) -> None:
    with nano.session(SlowFile(clock)) as session:
        first, second = session.ask("What does the sign say?"), session.ask("What does the sign say?")
    assert (first.timings.encode_s, second.timings.encode_s) == (10.0, 0.0)
    assert (second.timings.media_s, second.timings.prefill_s, second.timings.first_token_s) == (0.0, 100.0, 100.0)
