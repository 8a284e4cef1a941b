"""Several questions about the same media: options as a trie, a shared prefix, a session's choose and extract, details of values,
features; on nano with the native engine at its default precision."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smolvlm
from smolvlm import SmolVLM
from smolvlm.errors import ParamsError
from smolvlm.extraction import _leaves
from smolvlm.inference.scoring import log_probabilities
from smolvlm.prompt.messages import Message, TextPart

NANO = Path(__file__).parents[2] / "examples" / "media" / "nano"
SIGN, SCENE = NANO / "sign.png", NANO / "scene.png"
QUESTIONS = [
    ("What does the sign say?", ["OPEN", "CLOSED", "EXIT"]),
    ("Is there a sign in the picture?", ["yes", "no"]),
    ("What is this?", ["a red circle", "a red square", "a blue circle", "a red", "a red circle and a dog"]),
]


@pytest.fixture(scope="module", params=["native", "torch"])
def nano(request: pytest.FixtureRequest) -> SmolVLM:
    return smolvlm.load("nano", engine=request.param, dtype="q8" if request.param == "native" else "float32")


class Calls:
    """Counts an engine's calls: (name, tokens or sequences)."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, model: SmolVLM) -> None:
        self.made: list[tuple[str, int]] = []
        for name in ("encode_images", "prefill", "decode"):
            monkeypatch.setattr(model.engine, name, self._counted(name, getattr(model.engine, name)))

    def _counted(self, name: str, call: Any) -> Any:
        def counted(*args: Any, **kwargs: Any) -> Any:
            self.made.append((name, len(args[0] if name != "prefill" else args[1])))
            return call(*args, **kwargs)

        return counted


def test_many_questions_equal_single_ones_and_encode_once(nano: SmolVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    single = [nano.choose(SIGN, question, options) for question, options in QUESTIONS]
    calls = Calls(monkeypatch, nano)
    together = nano.choose_many(SIGN, QUESTIONS)
    for one, many in zip(single, together, strict=True):
        assert many.option == one.option
        assert list(many.logprobs.values()) == pytest.approx(list(one.logprobs.values()), abs=2e-3)
    tiles = sum(size for name, size in calls.made if name == "encode_images")
    assert tiles == nano.processor(nano.messages(SIGN, "?")).tile_count
    whole = max(size for name, size in calls.made if name == "prefill")
    assert sum(size for name, size in calls.made if name == "prefill") < whole + 3 * 40  # the picture's tokens once


def test_yes_or_no_is_one_pass(nano: SmolVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    nano.choose(SIGN, *QUESTIONS[1])
    calls = Calls(monkeypatch, nano)
    nano.choose(SIGN, *QUESTIONS[1])
    assert [call for call in calls.made if call[0] == "decode"] == [("decode", 2)]
    assert [name for name, _ in calls.made].count("prefill") == 1


def plain_sums(model: SmolVLM, ids: Sequence[int], tails: Sequence[Sequence[int]]) -> list[float]:
    """One whole prefill for each tail, without a trie."""
    sums = []
    for tail in tails:
        seq = model.engine.open(len(ids) + len(tail))
        logits = model.engine.prefill(seq, [*ids, *tail[:-1]], logits_to_keep=len(tail)).astype(np.float64)
        model.engine.close(seq)
        log_p = logits - np.log(np.exp(logits - logits.max(-1, keepdims=True)).sum(-1, keepdims=True)) - logits.max(-1, keepdims=True)
        sums.append(float(log_p[np.arange(len(tail)), tail].sum()))
    return sums


def test_a_trie_of_any_shape_gives_the_plain_sums(nano: SmolVLM) -> None:
    rng = np.random.default_rng(3)
    ids = [int(i) for i in rng.integers(20, 900, 30)]
    for count, letters in ((1, 3), (2, 3), (9, 2), (70, 3), (40, 900)):
        tails = [[int(i) + 20 for i in rng.integers(0, letters, rng.integers(1, 7))] for _ in range(count)]
        seq = nano.engine.open(64)
        logits = nano.engine.prefill(seq, ids)[-1]
        found = log_probabilities(nano.engine, seq, logits, tails)
        assert nano.engine.length(seq) == len(ids)
        nano.engine.close(seq)
        assert found == pytest.approx(plain_sums(nano, ids, tails), abs=0.1 if nano.engine.name == "native" else 2e-3)


def test_a_session_chooses_and_extracts_without_a_trace(nano: SmolVLM) -> None:
    schema = {"type": "object", "properties": {"text": {"type": "string", "maxLength": 12}}, "required": ["text"]}
    with nano.session(SIGN) as plain, nano.session(SIGN) as session:
        encoded = nano.runtime.counters.tiles_encoded
        choices = [session.choose(question, options) for question, options in QUESTIONS]
        value = session.extract(schema)
        assert nano.runtime.counters.tiles_encoded - encoded == nano.processor(nano.messages(SIGN, "?")).tile_count
        assert session.ask("What does the sign say?").token_ids == plain.ask("What does the sign say?").token_ids
        for choice, (question, options) in zip(choices, QUESTIONS, strict=True):
            alone = nano.choose(SIGN, question, options)
            assert list(choice.logprobs.values()) == pytest.approx(list(alone.logprobs.values()), abs=2e-3)
        assert value == nano.extract(SIGN, schema)
        chosen = session.choose("Is it red?", ["yes", "no"], remember=True)
        assert session._turns[-1] == Message("assistant", (TextPart(chosen.option),))


def test_details_say_where_each_value_stands_and_how_likely_it_was(nano: SmolVLM) -> None:
    schema = {
        "type": "object",
        "properties": {
            "says": {"type": "string", "maxLength": 12},
            "count": {"type": "integer", "minimum": 0, "maximum": 99},
            "colors": {"type": "array", "items": {"enum": ["red", "green"]}, "minItems": 1, "maxItems": 3},
        },
        "required": ["says", "count", "colors"],
    }
    found = nano.extract(SIGN, schema, details=True)
    assert found.value == nano.extract(SIGN, schema) == json.loads(found.answer.text)
    assert found.fields["/says"].value == found.value["says"]
    assert [field.value for name, field in found.fields.items() if name.startswith("/colors/")] == found.value["colors"]
    for field in found.fields.values():
        assert json.loads(field.text) == field.value
        assert found.answer.text[field.start : field.end] == field.text
    assert found.answer.logprobs is not None
    whole = sum(token.logprob for token in found.answer.logprobs)
    assert whole - 1e-9 <= min(field.logprob for field in found.fields.values()) <= 0


@pytest.mark.parametrize(
    "value",
    [
        {"a": {"b": [1, -2.5e3, {"c/d~": None}], "e": []}, "": '"x\\ \u00e9\U0001f600'},
        [],
        "text",
        [[[]], {}],
        -0.5,
        [True, False, {"k": [{}]}],
    ],
)
@pytest.mark.parametrize("indent", [None, 2])
def test_leaves_of_a_document(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    found = list(_leaves(text))

    def walk(node: Any, pointer: str) -> list[tuple[str, Any]]:
        if node and isinstance(node, dict):
            return [leaf for key, each in node.items() for leaf in walk(each, f"{pointer}/{key.replace('~', '~0').replace('/', '~1')}")]
        if node and isinstance(node, list):
            return [leaf for i, each in enumerate(node) for leaf in walk(each, f"{pointer}/{i}")]
        return [(pointer, node)]

    assert [(pointer, leaf) for pointer, leaf, _, _ in found] == walk(value, "")
    assert all(json.loads(text[start:end]) == leaf for _, leaf, start, end in found)


def test_features_are_the_encoders_rows(nano: SmolVLM) -> None:
    inputs = nano.processor(nano.messages([SIGN, SCENE], "?"))
    expected = nano.engine.encode_images(inputs.pixel_values).numpy()
    first, second = nano.features([SIGN, SCENE])
    counts = [info.tile_count for info in inputs.media]
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    np.testing.assert_allclose(first, expected[: counts[0]].reshape(-1, expected.shape[-1]), **tolerance)
    np.testing.assert_allclose(second, expected[counts[0] :].reshape(-1, expected.shape[-1]), **tolerance)
    pooled = nano.features([SIGN, SCENE], pooled=True)
    np.testing.assert_allclose(pooled[1], second.mean(0), **tolerance)

    def alike(left: Any, right: Any) -> float:
        return float(left @ right / np.linalg.norm(left) / np.linalg.norm(right))

    assert alike(pooled[0], nano.features(SIGN, pooled=True)[0]) > 0.999 > alike(pooled[0], pooled[1])


def test_no_questions_and_wrong_ones(nano: SmolVLM) -> None:
    assert nano.choose_many(SIGN, []) == []
    with pytest.raises(ParamsError, match="twice"):
        nano.choose_many(NANO / "absent.png", [("?", ["a", "b"]), ("?", ["a", "a"])])  # before the file is looked for
    with pytest.raises(ParamsError, match="unknown option fsp"):
        nano.ask(NANO / "absent.png", "?", fsp=2)
    with pytest.raises(ParamsError, match="generates nothing"):
        nano.features(SIGN, max_new_tokens=3)
