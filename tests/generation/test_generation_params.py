"""GenerationParams: legal values pass, others are named with their range; every parameter changes an answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from helpers_generation import decode, encode, eos_id, random_engine, scripted_engine, vocab_size
from smolvlm.errors import ParamsError
from smolvlm.generation import GenerationParams, Request, collect, generate


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", True),
        ("max_new_tokens", 2.5),
        ("max_new_tokens", "9"),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("temperature", "warm"),
        ("temperature", None),
        ("top_k", -1),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.1),
        ("frequency_penalty", -2.1),
        ("no_repeat_ngram_size", -1),
        ("stop", ""),
        ("stop", ["a", ""]),
        ("stop", [1]),
        ("stop", b"x"),
        ("stop", 7),
        ("stop", ["x" * 2000]),
        ("stop", [str(i) for i in range(99)]),
        ("seed", -1),
        ("seed", 1.0),
        ("seed", 2**64),
        ("logprobs", 21),
        ("logprobs", -1),
        ("logprobs", True),
        ("loop_guard", 1),
        ("ignore_eos", "yes"),
        ("special_tokens", "show"),
        ("special_tokens", True),
        ("temperature", 10**400),
    ],
)
def test_illegal_values_are_named(name: str, value: object) -> None:
    with pytest.raises(ParamsError, match=name) as caught:
        GenerationParams(**{name: value})
    message = str(caught.value)
    assert "expected" in message
    assert "\n" not in message
    assert len(message) < 250


def test_values_are_normalised_once() -> None:
    params = GenerationParams(max_new_tokens=np.int64(7), temperature=1, stop="END", top_k=np.int32(3))
    assert (params.max_new_tokens, params.temperature, params.stop, params.top_k) == (7, 1.0, ("END",), 3)
    assert type(params.max_new_tokens) is int
    assert type(params.temperature) is float
    assert GenerationParams(stop=["a", "b", "a"]).stop == ("a", "b")
    assert GenerationParams(stop=None).stop == ()  # type: ignore[arg-type]  # as JSON bodies have it
    with pytest.raises(dataclasses.FrozenInstanceError):
        params.top_k = 5  # type: ignore[misc]
    with pytest.raises(TypeError):
        GenerationParams(5)  # type: ignore[misc]  # keywords only


LOOPING = encode("The cat sits on the mat.") * 12


def _answer(params: GenerationParams, scripted: bool) -> object:
    if scripted:
        engine = scripted_engine({1: LOOPING})
        prompt = [1, 5, 6]
    else:
        engine, prompt = random_engine(3, spread=1.5), [1, *encode("a b a b a c")]
    seq = engine.open(1000)
    logits = engine.prefill(seq, prompt)[0]
    request = Request(seq, logits, prompt, params)
    return collect(generate(engine, [request], decode, [eos_id()]))[0]


@pytest.mark.parametrize(
    ("base", "change"),
    [
        ({}, {"max_new_tokens": 5}),
        ({}, {"temperature": 1.0}),
        ({"temperature": 1.0}, {"top_k": 2}),
        ({"temperature": 1.0}, {"top_p": 0.1}),
        ({"temperature": 1.0}, {"min_p": 0.8}),
        ({}, {"repetition_penalty": 1.5}),
        ({"temperature": 2.0}, {"presence_penalty": 2.0}),
        ({"temperature": 2.0}, {"frequency_penalty": 2.0}),
        ({"scripted": True, "loop_guard": False}, {"no_repeat_ngram_size": 2}),
        ({"scripted": True}, {"stop": ("sits",)}),
        ({"temperature": 1.0}, {"seed": 8}),
        ({}, {"logprobs": 2}),
        ({"scripted": True}, {"loop_guard": False}),
        ({"scripted": True, "loop_guard": False}, {"ignore_eos": True}),
        ({"scripted": True, "loop_guard": False, "ignore_eos": True}, {"special_tokens": "keep"}),
    ],
)
def test_every_parameter_changes_an_answer(base: dict, change: dict) -> None:
    base = {"seed": 7, "max_new_tokens": 200, **base}
    scripted = base.pop("scripted", False)
    before = _answer(GenerationParams(**base), scripted)
    assert before == _answer(GenerationParams(**base), scripted)  # so that a difference means something
    assert before != _answer(GenerationParams(**{**base, **change}), scripted)


def test_the_table_above_has_every_parameter() -> None:
    marks = test_every_parameter_changes_an_answer.pytestmark[0].args[1]
    assert {name for _, change in marks for name in change} == {f.name for f in dataclasses.fields(GenerationParams)}
    assert vocab_size() > eos_id()
