"""Grammars: random logits always give a document that `jsonschema` accepts, within the budget."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

import jsonschema
import numpy as np
import pytest

from helpers_generation import SmallEngine, decode, encode, eos_id, small_tokenizer, vocab_size
from smolvlm.checkpoint.random_tokenizer import byte_level_bpe
from smolvlm.errors import CheckpointError, EngineError, ParamsError, SchemaError
from smolvlm.generation import GenerationParams, Grammar, GrammarCompiler, Request, collect, generate

EOS = [eos_id()]


def obj(required: bool = True, **properties: object) -> dict:
    return {"type": "object", "properties": properties, **({"required": list(properties)} if required else {})}


TEXT, INTEGER, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
SCHEMAS: dict[str, dict] = {
    "flat": obj(a=TEXT, n=INTEGER, x=NUMBER, ok={"type": "boolean"}, none={"type": "null"}),
    "optional fields": obj(False, a=TEXT, b={"type": "array", "items": NUMBER}, c=obj(q={"enum": ["one two", 3, None]})),
    "recursive tree": {
        "$ref": "#/$defs/node",
        "$defs": {"node": obj(name={"type": "string", "minLength": 3}, children={"type": "array", "items": {"$ref": "#/$defs/node"}})},
    },
    "linked list": {"$ref": "#/$defs/n", "$defs": {"n": obj(v=INTEGER, next={"anyOf": [{"$ref": "#/$defs/n"}, {"type": "null"}]})}},
    "patterns": obj(
        a={"type": "string", "pattern": "^[A-Z]{3}-[0-9]{4}$"},
        b={"type": "string", "pattern": "^[ab]{3,}cd$"},
        c={"type": "string", "pattern": "[0-9]"},
    ),
    "formats": obj(
        d={"type": "string", "format": "date"},
        e={"type": "string", "format": "email"},
        u={"type": "string", "format": "uuid"},
        i={"type": "string", "format": "ipv4"},
    ),
    "bounded numbers": obj(
        a={"type": "integer", "minimum": 100, "maximum": 120},
        b={"type": "number", "exclusiveMinimum": 0, "maximum": 1},
        c={"type": "integer", "multipleOf": 7, "minimum": 50},
        d={"type": "number", "maximum": -5},
    ),
    "nested arrays": {
        "type": "array",
        "minItems": 2,
        "items": {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 2, "maxLength": 9}},
    },
    "union": {"anyOf": [TEXT, INTEGER, obj(k={"const": "fixed"})]},
    "discriminated": {
        "oneOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}],
        "$defs": {
            "A": {"type": "object", "properties": {"k": {"const": "a"}, "x": NUMBER}, "required": ["x"]},
            "B": {"type": "object", "properties": {"k": {"const": "b"}, "y": TEXT}, "required": ["y"]},
        },
    },
    "anything": obj(v={}, w=True),
    "free keys": {"type": "object", "additionalProperties": INTEGER},
    "declared and free keys": {**obj(a=INTEGER), "additionalProperties": TEXT},
    "any object": {"type": "object"},
    "long string": {"type": "string", "minLength": 40},
    "integer": INTEGER,
    "enum": {"enum": ["alpha", "beta", "gamma delta"]},
    "tuple": {"type": "array", "prefixItems": [INTEGER, TEXT], "minItems": 2},
    "joined": {"allOf": [{"$ref": "#/$defs/base"}, obj(y=INTEGER)], "$defs": {"base": obj(x=TEXT)}},
    "types": {"type": ["string", "null", "array"], "items": INTEGER},
    "itself or nothing": {
        "$ref": "#/$defs/link",
        "$defs": {"link": obj(v=INTEGER, next={"anyOf": [{"$ref": "#/$defs/link"}, {"type": "null"}]})},
    },
}


@lru_cache(maxsize=1)
def compiler() -> GrammarCompiler:
    return GrammarCompiler(small_tokenizer().to_str(), vocab_size(), EOS)


def run(grammar: Grammar, budget: int, logits=None, seed: int = 0, **params):
    rng = np.random.default_rng([seed, budget])
    next_logits = logits or (lambda _: (rng.standard_normal(vocab_size()) * 3).astype(np.float32))
    engine = SmallEngine(next_logits)
    seq = engine.open(budget + 10)
    params = GenerationParams(**{"temperature": 1.0, "seed": seed, "max_new_tokens": budget, **params})
    request = Request(seq, engine.prefill(seq, [1, 2, 3])[0], [1, 2, 3], params, grammar)
    return collect(generate(engine, [request], decode, EOS))[0], engine


def check(schema: dict, text: str) -> None:
    document = json.loads(text)
    checker = jsonschema.FormatChecker(["date", "email", "uuid", "ipv4"])
    jsonschema.Draft202012Validator(schema, format_checker=checker).validate(document)


@pytest.mark.parametrize("name", SCHEMAS)
def test_ten_of_ten_random_answers_are_valid(name: str) -> None:
    """With the 21 schemas here: 210 of 210. Budgets from the least possible to roomy, never overdrawn."""
    schema = SCHEMAS[name]
    least = compiler().json_schema(schema).tokens_to_complete
    for seed in range(10):
        budget = least + (0, 1, 3, 10, 60)[seed % 5]
        answer, _ = run(compiler().json_schema(schema), budget, seed=seed)
        check(schema, answer.text)
        assert answer.finish_reason == "stop"
        assert len(answer.sampled_ids) <= budget


def test_there_are_twenty_one_schemas() -> None:
    assert len(SCHEMAS) == 21


@lru_cache(maxsize=1)
def bytes_only() -> GrammarCompiler:
    """Of a vocabulary without merges: no word, no pair of brackets, is one token."""
    tokenizer = byte_level_bpe([], 300)
    assert len(tokenizer.encode("null").ids) == 4
    return GrammarCompiler(tokenizer.to_str(), tokenizer.get_vocab_size(), [tokenizer.token_to_id("<|im_end|>")])


@pytest.mark.parametrize("name", SCHEMAS)
def test_an_end_is_found_byte_by_byte(name: str) -> None:
    assert bytes_only().json_schema(SCHEMAS[name]).tokens_to_complete <= 200


@pytest.mark.parametrize("name", ["flat", "recursive tree", "anything", "free keys", "patterns"])
def test_a_model_that_never_wants_to_end_is_brought_to_an_end(name: str) -> None:
    """Greedy logits that love opening brackets, letters and digits, and hate what closes."""
    texts = [decode([i]) for i in range(vocab_size() - 9)]
    wish = np.zeros(vocab_size(), dtype=np.float32)
    for i, text in enumerate(texts):
        wish[i] = 5.0 * sum(c in "[{abc19" for c in text) - 50.0 * any(c in '"}]' for c in text)
    answer, _ = run(compiler().json_schema(SCHEMAS[name]), 120, lambda _: wish, temperature=0.0)
    check(SCHEMAS[name], answer.text)
    assert answer.finish_reason == "stop"
    assert len(answer.sampled_ids) > 20


def test_numbers_come_to_an_end() -> None:
    digits = np.zeros(vocab_size(), dtype=np.float32)
    digits[[encode(c)[0] for c in "3."]] = 9.0
    digits[encode("e")[0]] = 8.0
    schema = obj(x=NUMBER, y=INTEGER)
    answer, _ = run(compiler().json_schema(schema), 200, lambda _: digits, temperature=0.0)
    check(schema, answer.text)
    assert len(answer.text) < 2 * 17 + len('{"x":,"y":}')
    assert "e" not in answer.text


def test_special_tokens_are_never_allowed_but_the_stop_token_at_the_end() -> None:
    grammar = compiler().json_schema({"type": "string"})
    special = [small_tokenizer().token_to_id(t) for t in ("<image>", "<|endoftext|>", "<|im_end|>", "<global-img>")]
    beyond = list(range(vocab_size() - 9, vocab_size()))
    for text in ('"', "a", "猫", "b"):
        allowed = grammar.allowed()
        assert not allowed[special].any()
        assert not allowed[beyond].any()
        assert not allowed[EOS].any()
        for token in encode(text):
            grammar.accept(token)
    number = compiler().json_schema(INTEGER)
    assert not number.is_complete
    number.accept(encode("7")[0])
    assert number.is_complete
    assert not number.is_finished
    assert number.allowed()[EOS].all()
    number.accept(EOS[0])
    assert number.is_finished


def test_added_tokens_that_the_file_does_not_call_special_are_not_text_either() -> None:
    raw = json.loads(small_tokenizer().to_str())
    raw["added_tokens"] = [{**token, "special": token["id"] in EOS} for token in raw["added_tokens"]]
    grammar = GrammarCompiler(json.dumps(raw), vocab_size(), EOS).json_schema(TEXT)
    grammar.accept(encode('"')[0])
    allowed = grammar.allowed()
    assert allowed[encode("a")[0]]
    assert not allowed[[token["id"] for token in raw["added_tokens"]]].any()


def test_apply_masks_a_copy() -> None:
    grammar = compiler().json_schema(INTEGER)
    logits = np.zeros(vocab_size(), dtype=np.float32)
    masked = grammar.apply(logits)
    assert not logits.any()
    finite = {decode([int(i)]) for i in np.flatnonzero(np.isfinite(masked))}
    assert finite == {"-", *"0123456789"}


def test_forced_text_is_taken_at_once() -> None:
    schema = obj(a_long_property_name=INTEGER, another_long_property_name=INTEGER)
    answer, engine = run(compiler().json_schema(schema), 100)
    assert any(count > 3 for _, count in engine.prefill_calls[1:])
    assert len(engine.decode_calls) < len(answer.token_ids) / 2
    stored = engine.sequences[1]  # the cache: prompt and a beginning of what was sampled, nothing else
    assert stored == [1, 2, 3, *answer.sampled_ids][: len(stored)]
    # One by one where log-probabilities are asked for, each from the logits before its token.
    answer, engine = run(compiler().json_schema(schema), 100, logprobs=1)
    assert len(answer.logprobs) == len(answer.token_ids) == len(engine.decode_calls) + 1


def test_nothing_else_ends_a_document() -> None:
    schema = {"type": "array", "items": {"const": "the same thing again"}, "minItems": 20, "maxItems": 20}
    answer, _ = run(compiler().json_schema(schema), 1000, stop=["again"], ignore_eos=True)
    check(schema, answer.text)
    assert answer.finish_reason == "stop"


def test_free_and_bound_requests_share_a_batch() -> None:
    rng = np.random.default_rng(0)
    rows = (rng.standard_normal((vocab_size(), vocab_size())) * 3).astype(np.float32)

    def results(kinds: list[bool]):
        engine = SmallEngine(lambda ids: rows[ids[-1]])
        requests = []
        for bound in kinds:
            seq = engine.open(100)
            grammar = compiler().json_schema(SCHEMAS["flat"]) if bound else None
            params = GenerationParams(temperature=1.0, seed=4, max_new_tokens=60, ignore_eos=True, loop_guard=False)
            requests.append(Request(seq, engine.prefill(seq, [1, 2])[0], [1, 2], params, grammar))
        return collect(generate(engine, requests, decode, EOS), len(kinds))

    assert results([True, False, True]) == results([True]) + results([False]) + results([True])


def test_a_budget_below_the_shortest_answer_is_refused() -> None:
    with pytest.raises(ParamsError, match="max_new_tokens"):
        run(compiler().json_schema(SCHEMAS["flat"]), 5)


def test_any_json_object() -> None:
    for seed in range(5):
        answer, _ = run(compiler().json_object(), 80, seed=seed)
        assert isinstance(json.loads(answer.text), dict)


def test_a_token_out_of_turn_is_an_error_and_changes_nothing() -> None:
    grammar = compiler().json_schema(INTEGER)
    with pytest.raises(EngineError, match="not allowed"):
        grammar.accept(encode("x")[0])
    assert grammar.accept(encode("5")[0]) == encode("5")[0]


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"model": 3}'])
def test_a_broken_tokenizer_is_named(text: str) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json"):
        GrammarCompiler(text, 100, [0]).json_schema(INTEGER)
    with pytest.raises(CheckpointError, match="stop token"):
        GrammarCompiler(small_tokenizer().to_str(), vocab_size(), []).json_schema(INTEGER)


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "string", "pattern": "("},
        {"type": "string", "pattern": "^(?=a)b$"},
        {"type": "number", "minimum": 5, "maximum": 2},
        {"allOf": [{"type": "string"}, {"type": "integer"}]},
    ],
    ids=str,
)
def test_what_the_compiler_refuses_is_one_sentence(schema: dict) -> None:
    with pytest.raises(SchemaError) as caught:
        compiler().json_schema(schema)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


PATTERNS: dict[str, tuple[dict[str, Any], str, str]] = {
    "an open class": ({"properties": {"zip": {"type": "string", "pattern": "(["}}}, "#/properties/zip/pattern is '(['", "unclosed"),
    "look-around": (
        {"properties": {"ok": {"type": "string", "pattern": "^a$"}, "no": {"type": "string", "pattern": "^(?=a)b$"}}},
        "#/properties/no/pattern",
        "look-around",
    ),
    "a backreference in a list": (
        {"properties": {"all": {"type": "array", "items": {"type": "string", "pattern": r"(a)\1"}}}},
        "#/properties/all/items/pattern",
        "backreferences",
    ),
    "a word boundary": ({"properties": {"w": {"type": "string", "pattern": r"\bfoo\b"}}}, "#/properties/w/pattern", "WordUnicode"),
    "a definition": (
        {"properties": {"a": {"$ref": "#/$defs/B"}}, "$defs": {"B": {"type": "string", "pattern": r"\p{Foo}"}}},
        "#/$defs/B/pattern",
        "property not found",
    ),
    "names of properties": ({"patternProperties": {"([": {"type": "string"}}}, "#/patternProperties is '(['", "unclosed"),
}


@pytest.mark.parametrize("case", PATTERNS)
def test_a_pattern_that_cannot_be_read_is_named(case: str) -> None:
    schema, place, reason = PATTERNS[case]
    with pytest.raises(SchemaError) as caught:
        compiler().json_schema({"type": "object"} | schema)
    assert place in str(caught.value)
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_limit_of_depth_is_named() -> None:
    """22 levels of a user's, of which each takes three: the object, its properties, the list."""
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(22):
        schema = {"type": "object", "properties": {"a": {"type": "array", "items": schema}}}
    with pytest.raises(SchemaError, match="64 levels.*side by side into .defs"):
        compiler().json_schema(schema)
    names = [f"L{i}" for i in range(22)]  # what the message says to do
    defs = {
        name: {"type": "object", "properties": {"a": {"type": "array", "items": {"$ref": f"#/$defs/{after}"}}}}
        for name, after in zip(names, [*names[1:], "End"], strict=True)
    }
    compiler().json_schema({"$ref": "#/$defs/L0", "$defs": defs | {"End": {"type": "string"}}})
