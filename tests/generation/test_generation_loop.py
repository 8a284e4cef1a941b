"""The decode loop over a small real engine: batches, ends, caches, cancellation."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_generation import SmallEngine, decode, encode, eos_id, random_engine, scripted_engine, vocab_size
from smolvlm.engines.base import Engine
from smolvlm.errors import ContextLengthError
from smolvlm.generation import GenerationParams, Request, collect, generate

EOS = [eos_id()]


def start(engine: SmallEngine, prompt: list[int], params: GenerationParams) -> Request:
    seq = engine.open(len(prompt) + params.max_new_tokens)
    return Request(seq, engine.prefill(seq, prompt)[0], prompt, params)


def answer(engine: SmallEngine, prompt: list[int], params: GenerationParams, **options):
    return collect(generate(engine, [start(engine, prompt, params)], decode, EOS, **options))[0]


def test_the_test_engine_keeps_the_protocol() -> None:
    engine = random_engine()
    engine.config = None  # type: ignore[assignment]
    assert isinstance(engine, Engine)


def test_greedy_equals_a_plain_loop() -> None:
    """The reference: no cache bookkeeping, no batch, no streams."""
    engine, prompt = random_engine(5), [1, 40, 41]
    tokens: list[int] = []
    while len(tokens) < 60:
        token = int(np.argmax(engine.next_logits(prompt + tokens)))
        if token in EOS:
            break
        tokens.append(token)
    got = answer(engine, prompt, GenerationParams(max_new_tokens=60))
    assert list(got.token_ids) == tokens
    text = decode(tokens)
    assert got.text == (text[:-1] if text.endswith("\ufffd") else text)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_batch_equals_its_members_alone(temperature: float) -> None:
    prompts = [[1, 30 + i, *range(50, 50 + 3 * i)] for i in range(6)]
    params = [
        GenerationParams(temperature=temperature, seed=i, max_new_tokens=5 + 9 * i, logprobs=2, repetition_penalty=1.1) for i in range(6)
    ]
    alone = [answer(random_engine(2), p, q) for p, q in zip(prompts, params, strict=True)]
    engine = random_engine(2)
    requests = [start(engine, p, q) for p, q in zip(prompts, params, strict=True)]
    together = collect(generate(engine, requests, decode, EOS), 6)
    assert together == alone
    assert len({len(g.token_ids) for g in together}) > 3  # they do end at different times
    assert {len(seqs) for seqs in engine.decode_calls} >= {5, 1}  # steps are shared, and the batch shrinks


def test_the_cache_holds_all_but_the_newest_token_at_every_event() -> None:
    engine = random_engine(4)
    requests = [start(engine, [1, 9 + i], GenerationParams(max_new_tokens=4 + i, temperature=1.0, seed=i)) for i in range(3)]
    sampled: dict[int, list[int]] = {0: [], 1: [], 2: []}
    for event in generate(engine, requests, decode, EOS):
        request = requests[event.request_index]
        sampled[event.request_index].append(event.token_id)
        assert engine.sequences[request.seq] == [*request.prompt_ids, *sampled[event.request_index][:-1]]
    for index, request in enumerate(requests):  # and after the end: the last token was not decoded in vain
        assert engine.sequences[request.seq] == [*request.prompt_ids, *sampled[index][:-1]]


def test_the_stop_token_ends_and_is_not_seen() -> None:
    ids = encode("A red hat.")
    got = answer(scripted_engine({1: ids}), [1, 5, 6], GenerationParams(logprobs=1))
    assert (got.text, got.finish_reason, got.token_ids) == ("A red hat.", "stop", tuple(ids))
    assert got.sampled_ids == (*ids, *EOS)
    assert len(got.logprobs) == len(got.top_logprobs) == len(ids)
    ignored = answer(scripted_engine({1: ids}), [1, 5, 6], GenerationParams(ignore_eos=True, max_new_tokens=20, loop_guard=False))
    assert (ignored.finish_reason, len(ignored.token_ids)) == ("length", 20)
    assert ignored.text == "A red hat."  # stop tokens are special: they have no text


def test_max_new_tokens_and_context_end_with_length() -> None:
    ids = encode("The picture shows a man who is standing in front of a house.")
    engine = scripted_engine({1: ids})
    got = answer(engine, [1, 5, 6], GenerationParams(max_new_tokens=4))
    assert (got.text, got.finish_reason) == (decode(ids[:4]), "length")
    assert len(engine.decode_calls) == 3  # the fourth token needs no decode
    got = answer(scripted_engine({1: ids}), [1, 5, 6], GenerationParams(), max_length=3 + 6)
    assert (len(got.token_ids), got.finish_reason) == (6, "length")
    got = answer(scripted_engine({1: ids}), [1, 5, 6], GenerationParams(), max_length=3)
    assert (len(got.token_ids), got.finish_reason) == (1, "length")
    with pytest.raises(ContextLengthError, match="3 tokens"):
        answer(scripted_engine({1: ids}), [1, 5, 6], GenerationParams(), max_length=2)
    assert answer(scripted_engine({1: ids[:4]}), [1, 5, 6], GenerationParams(max_new_tokens=5)).finish_reason == "stop"


def test_a_stop_string_cuts_text_and_tokens() -> None:
    ids = encode("A list: 1. one apple, 2. two pears")
    engine = scripted_engine({1: ids})
    got = answer(engine, [1, 5, 6], GenerationParams(stop=["apple, 2", "zzz"]))
    assert (got.text, got.finish_reason) == ("A list: 1. one ", "stop")
    assert decode(got.token_ids).startswith(got.text)
    assert decode(got.token_ids[:-1]) != got.text or decode(got.token_ids) == got.text
    assert len(got.sampled_ids) < len(ids)  # it stopped there and then
    events = list(generate(scripted_engine({1: ids}), [], decode, EOS))
    assert events == []


def test_a_loop_is_cut_and_named_and_can_be_let_be() -> None:
    ids = encode("In the video, " + "the man picks up the cup. " * 40)
    got = answer(scripted_engine({1: ids}), [1, 5, 6], GenerationParams(max_new_tokens=300))
    assert got.finish_reason == "repetition"
    assert got.text.rstrip() == "In the video, the man picks up the cup."
    assert decode(got.token_ids) == got.text
    free = answer(scripted_engine({1: ids}), [1, 5, 6], GenerationParams(max_new_tokens=300, loop_guard=False))
    assert (free.finish_reason, free.text) == ("length", decode(ids[:300]))


def test_deltas_joined_are_the_text_and_what_is_held_comes_at_the_end() -> None:
    ids = encode("He ran and ran and ran, then 猫 and 😀.")
    engine = scripted_engine({1: ids})
    events = list(generate(engine, [start(engine, [1, 5, 6], GenerationParams())], decode, EOS))
    assert "".join(e.text_delta for e in events) == decode(ids)
    assert all("\ufffd" not in e.text_delta for e in events)
    assert [e.finish_reason for e in events] == [None] * len(ids) + ["stop"]
    short = scripted_engine({1: ids})  # the budget ends while "ran and ran" is held back: it is let go
    got = answer(short, [1, 5, 6], GenerationParams(max_new_tokens=len(encode("He ran and ran"))))
    assert (got.text, got.finish_reason) == ("He ran and ran", "length")


def test_cancellation_ends_every_answer_at_the_next_token() -> None:
    engine = random_engine(1)
    params = GenerationParams(max_new_tokens=50, ignore_eos=True, loop_guard=False)
    requests = [start(engine, [1, 9 + i], params) for i in range(3)]
    asked = 0

    def cancel() -> bool:
        nonlocal asked
        asked += 1
        return asked > 4

    got = collect(generate(engine, requests, decode, EOS, cancel=cancel), 3)
    assert [g.finish_reason for g in got] == ["cancelled"] * 3
    assert [len(g.token_ids) for g in got] == [5] * 3
    assert len(engine.decode_calls) == 4


def test_logprobs_come_with_each_token_and_equal_the_engines() -> None:
    engine = random_engine(6)
    got = answer(engine, [1, 20], GenerationParams(temperature=1.0, seed=2, max_new_tokens=12, logprobs=3, ignore_eos=True))
    for place, (token, logprob, top) in enumerate(zip(got.token_ids, got.logprobs, got.top_logprobs, strict=True)):
        row = engine.next_logits([1, 20, *got.token_ids[:place]]).astype(np.float64)
        expected = row - row.max() - np.log(np.exp(row - row.max()).sum())
        assert logprob == pytest.approx(expected[token], abs=1e-5)
        assert [i for i, _ in top] == np.argsort(-expected)[:3].tolist()
    assert len(got.token_ids) == 12
    assert vocab_size() == len(row)
