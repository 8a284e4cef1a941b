"""`extract` on a random checkpoint: whatever the weights say, the result validates."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from pydantic import BaseModel, Field

from smolvlm import SmolVLM
from smolvlm.errors import ParamsError, SchemaError


class Kind(str, Enum):
    scratch = "scratch"
    dent = "dent"


class Defect(BaseModel):
    kind: Kind
    place: str = Field(max_length=20)
    size_mm: float | None = Field(ge=0, le=500)


class Report(BaseModel):
    evidence: str
    defects: list[Defect]
    passed: bool


SCHEMAS: list[dict[str, Any]] = [
    {"type": "object", "properties": {"name": {"type": "string"}, "count": {"type": "integer"}}, "required": ["name", "count"]},
    {"type": "object", "properties": {"tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}}}, "required": ["tags"]},
    {
        "type": "object",
        "properties": {"when": {"type": "string", "pattern": "^[0-9]{2}:[0-9]{2}$"}, "sure": {"type": "boolean"}},
        "required": ["when", "sure"],
    },
    {
        "type": "object",
        "properties": {
            "total": {"type": ["number", "null"]},
            "lines": {
                "type": "array",
                "maxItems": 3,
                "items": {
                    "type": "object",
                    "properties": {"item": {"type": "string", "maxLength": 12}, "price": {"type": "number", "minimum": 0}},
                    "required": ["item", "price"],
                },
            },
        },
        "required": ["total", "lines"],
    },
    {
        "$defs": {
            "tree": {
                "type": "object",
                "properties": {"v": {"type": "integer"}, "next": {"anyOf": [{"$ref": "#/$defs/tree"}, {"type": "null"}]}},
                "required": ["v", "next"],
            }
        },
        "$ref": "#/$defs/tree",
    },
]


@pytest.mark.parametrize("seeds", [4, pytest.param(40, marks=pytest.mark.slow)])
def test_every_result_validates(model: SmolVLM, seeds: int) -> None:
    """Each of five schemas, sampled hot from random weights; budgets from tight to ample. 40 seeds make 200 results."""
    frames = [np.full((8, 8, 3), shade, np.uint8) for shade in (0, 255)]
    for schema in SCHEMAS:
        for seed in range(seeds):
            result = model.extract([frames], schema, temperature=1.5, seed=seed, max_new_tokens=40 + 160 * seed // seeds)
            jsonschema.validate(result, schema)


def test_a_pydantic_model_comes_back_as_an_instance(model: SmolVLM, examples: Path) -> None:
    report = model.extract(examples / "chelsea.png", Report, detail="low", max_new_tokens=160)
    assert isinstance(report, Report)
    assert all(isinstance(defect.kind, Kind) for defect in report.defects)


@pytest.mark.parametrize("schema", [{}, "", "{", None, 5, [], {"type": "nonsense"}, {"type": "object", "properties": 3}, {"enum": []}])
def test_bad_schemas_are_refused_before_any_work(model: SmolVLM, examples: Path, schema: Any) -> None:
    before = model.runtime.counters.tiles_encoded
    with pytest.raises(SchemaError):
        model.extract(examples / "chelsea.png", schema)
    assert model.runtime.counters.tiles_encoded == before


def test_a_budget_too_small_for_any_answer_is_said(model: SmolVLM) -> None:
    with pytest.raises(ParamsError, match="max_new_tokens"):
        model.extract(None, SCHEMAS[3], max_new_tokens=3)
    assert model.engine.kv_pages == 0
