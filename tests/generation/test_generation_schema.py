"""Schemas: what is refused, what is bounded, and that bounding only ever narrows."""

from __future__ import annotations

import json
from collections.abc import Callable
from enum import Enum
from typing import Annotated, Literal

import jsonschema
import pytest
from pydantic import BaseModel, Field, TypeAdapter, field_validator

from smolvlm.errors import SchemaError
from smolvlm.generation import normalize_schema, parse_as


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Cat(BaseModel):
    kind: Literal["cat"] = "cat"
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Scene(BaseModel):
    """A docstring becomes a description."""

    title: str = Field(description="short", examples=["x"])
    colours: list[Colour] = []
    pet: Annotated[Cat | Dog, Field(discriminator="kind")]
    inner: Scene | None = None
    scores: dict[str, float] = {}


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        ({}, "empty"),
        ("{}", "empty"),
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[1]", "list"),
        (True, "bool"),
        (7, "int"),
        (None, "None"),
        ([], "list"),
        ({"type": "strin"}, "type"),
        ({"type": []}, "type"),
        ({"type": {}}, "type"),
        ({"type": "array", "uniqueItems": True}, "uniqueItems"),
        ({"not": {"type": "string"}}, "'not'"),
        ({"if": {}, "then": {}}, "'if'"),
        ({"type": "array", "contains": {}}, "contains"),
        ({"type": "object", "propertyNames": {}}, "propertyNames"),
        ({"type": "string", "nullable": True}, "nullable"),
        ({"type": "array", "items": [{"type": "string"}]}, "prefixItems"),
        ({"$ref": "https://example.org/x"}, "not local"),
        ({"$ref": "#/$defs/none"}, "points at nothing"),
        ({"type": "object", "properties": []}, "properties"),
        ({"type": "object", "properties": {"a": 3}}, "#/properties/a"),
        ({"type": "object", "required": "a"}, "required"),
        ({"enum": []}, "enum"),
        ({"anyOf": []}, "anyOf"),
        ({"type": "string", "minLength": 9, "maxLength": 3}, "minLength=9"),
        ({"type": "string", "maxLength": -1}, "maxLength"),
        ({"type": "array", "maxItems": "3"}, "maxItems"),
        ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "may both match"),
        ({"oneOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]}, "may both match"),
        ({"type": "object", "minProperties": 2}, "minProperties"),
        ({"type": "string", "description": object()}, "plain JSON"),
        ({"type": "number", "minimum": float("nan")}, "plain JSON"),
        (
            {"$ref": "#/$defs/n", "$defs": {"n": {"type": "object", "properties": {"n": {"$ref": "#/$defs/n"}}, "required": ["n"]}}},
            "without end",
        ),
        ({"$ref": "#"}, "without end"),
        ({"type": "string", "title": "x" * 300_000}, "characters"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_what_is_refused_is_named(schema: object, words: str) -> None:
    with pytest.raises(SchemaError, match=".") as caught:
        normalize_schema(schema)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert len(message) < 400


def test_too_deep_a_schema_is_refused() -> None:
    schema: dict = {"type": "string"}
    for _ in range(80):
        schema = {"type": "array", "items": schema}
    with pytest.raises(SchemaError, match="deeper"):
        normalize_schema(schema)


def test_bounds_are_added_and_given_ones_kept() -> None:
    raw = {
        "type": "object",
        "title": "T",
        "properties": {
            "s": {"type": "string", "default": "x"},
            "t": {"type": "string", "maxLength": 3},
            "u": {"type": "string", "minLength": 900},
            "a": {"items": {"type": "integer"}},
            "b": {"type": "array", "items": {"type": "integer"}, "minItems": 50},
            "e": {"type": "string", "enum": ["x" * 500]},
        },
    }
    before = json.dumps(raw)
    result = normalize_schema(raw)
    assert json.dumps(raw) == before  # the caller's dict is not touched
    assert result == {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "s": {"type": "string", "maxLength": 256},
            "t": {"type": "string", "maxLength": 3},
            "u": {"type": "string", "minLength": 900, "maxLength": 900},
            "a": {"type": "array", "items": {"type": "integer"}, "maxItems": 32},
            "b": {"type": "array", "items": {"type": "integer"}, "minItems": 50, "maxItems": 50},
            "e": {"type": "string", "enum": ["x" * 500]},
        },
    }
    assert normalize_schema(result) == result
    assert normalize_schema(json.dumps(raw)) == result


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ({"type": "object"}, {"a": {"b": [1, None, "x"]}}),
        ({"type": "object", "additionalProperties": {"type": "integer"}, "required": ["n"]}, {"n": 1, "m": 2}),
        (
            {
                "allOf": [
                    {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
                    {"type": "object", "properties": {"b": {"type": "integer"}}, "required": ["b"]},
                ]
            },
            {"a": 1, "b": 2},
        ),
        ({"$ref": "#/$defs/a", "$defs": {"a": {"type": "string"}}}, "x"),
        ({"properties": {"type": {"type": "string"}, "oneOf": {"type": "integer"}}}, {"type": "t", "oneOf": 1}),
        ({"type": "array", "uniqueItems": False}, [1, 1]),
        ({"oneOf": [{"const": True}, {"const": 1}, {"const": "1"}]}, 1),
        ({"type": ["object", "null"], "properties": {"a": {"enum": [{"$ref": "not a reference"}]}}}, None),
    ],
    ids=lambda value: str(value)[:40],
)
def test_ordinary_documents_survive_the_bounds(schema: dict, document: object) -> None:
    jsonschema.validate(document, schema)
    jsonschema.validate(document, normalize_schema(schema))


@pytest.mark.parametrize(
    ("schema", "document"),
    [
        ({"type": "object", "additionalProperties": {"type": "integer"}, "required": ["n"]}, {"n": "text"}),
        ({"type": "object", "properties": {"a": True}, "additionalProperties": False, "required": ["a"]}, {"b": 1}),
        (
            {"oneOf": [{"type": "object", "properties": {"k": {"const": 1}}}, {"type": "object", "properties": {"k": {"const": 2}}}]},
            {},
        ),  # matches both branches: the bounded schema must not let it through
        ({"enum": [True]}, 1),
    ],
    ids=lambda value: str(value)[:40],
)
def test_bounds_let_nothing_new_through(schema: dict, document: object) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, normalize_schema(schema))


def test_pydantic_models_come_and_go() -> None:
    schema = normalize_schema(Scene)
    document = {"title": "t", "colours": ["red"], "pet": {"kind": "dog", "name": "Rex"}, "inner": None, "scores": {"a": 0.5}}
    jsonschema.validate(document, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**document, "colours": ["green"]}, schema)
    scene = parse_as(Scene, json.dumps(document))
    assert isinstance(scene, Scene)
    assert scene.pet == Dog(name="Rex")
    assert parse_as({"type": "object"}, '{"a": 1}') == {"a": 1}
    adapter = TypeAdapter(list[int])
    assert normalize_schema(adapter) == {"type": "array", "items": {"type": "integer"}, "maxItems": 32}
    assert parse_as(adapter, "[1, 2]") == [1, 2]


def test_a_validator_in_code_may_still_refuse() -> None:
    class Even(BaseModel):
        n: int

        @field_validator("n")
        @classmethod
        def _even(cls, value: int) -> int:
            if value % 2:
                raise ValueError("n must be even")
            return value

    assert parse_as(Even, '{"n": 2}').n == 2
    for text in ('{"n": 3}', '{"n": 3', "[" * 100_000):
        with pytest.raises(SchemaError, match="refused") as caught:
            parse_as(Even, text)
        assert "\n" not in str(caught.value)


def test_a_model_without_a_schema_is_named() -> None:
    class Odd(BaseModel):
        call: Callable[[], int]

    class Worse:
        @staticmethod
        def model_json_schema() -> dict:
            raise RuntimeError("no\nschema")

    for model in (Odd, Worse):
        with pytest.raises(SchemaError, match="gives no JSON schema") as caught:
            normalize_schema(model)
        assert "\n" not in str(caught.value)


def test_unknown_keywords_are_reported_with_a_guess(caplog: pytest.LogCaptureFixture) -> None:
    assert normalize_schema({"type": "string", "maxlength": 3}) == {"type": "string", "maxLength": 256}
    assert "'maxlength'" in caplog.text
    assert "did you mean 'maxLength'" in caplog.text
    assert normalize_schema({"type": "string", "format": "path"}) == {"type": "string", "maxLength": 256}
    assert "'path' is not enforced" in caplog.text
