"""Schemas for `extract`: read from what users have, checked, and bounded so that a small model cannot run away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from smolvlm.errors import SchemaError
from smolvlm.generation.schema_bounds import bounded
from smolvlm.generation.schema_limits import MAX_SCHEMA_CHARS, require_small


def normalize_schema(schema: Any) -> dict[str, Any]:
    """A JSON schema of the subset that the grammar compiler takes, every answer of which is finite.

    `schema` is a dict, JSON text, or a pydantic model (or TypeAdapter). Every document that the result allows is valid
    under `schema`; not the other way round, for strings get a `maxLength`, arrays a `maxItems`, and objects no
    undeclared keys unless they ask for them. Applied twice it changes nothing. Digits are bounded by the grammar.
    Raises SchemaError that names the place and the keyword.
    """
    raw = _read(schema)
    if not isinstance(raw, dict):
        raise SchemaError(f"The schema is {_kind(raw)}; expected a JSON object such as {{'type': 'object', ...}}.")
    if not raw:
        raise SchemaError("The schema is empty: give at least a type and properties.")
    try:
        text = json.dumps(raw, allow_nan=False)
        copy: dict[str, Any] = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise SchemaError(f"The schema is not plain JSON ({error}).") from None
    if len(text) > MAX_SCHEMA_CHARS:
        raise SchemaError(f"The schema has {len(text)} characters; expected at most {MAX_SCHEMA_CHARS}.")
    require_small(copy)
    return bounded(copy)


def parse_as(schema: Any, text: str) -> Any:
    """The document `text` as an instance of the pydantic model `schema`, else as parsed JSON.

    Raises SchemaError when it does not parse, or when a validator in code refuses what the schema allows.
    """
    try:
        if hasattr(schema, "model_validate_json"):
            return schema.model_validate_json(text)
        if hasattr(schema, "validate_json"):
            return schema.validate_json(text)
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # pydantic's ValidationError is a ValueError
        reason = " ".join(str(error).split())[:300]
        raise SchemaError(f"The model's answer {text[:80]!r} was refused: {reason}.") from None


def _read(schema: Any) -> Any:
    if isinstance(schema, Mapping):
        return dict(schema)
    if isinstance(schema, str | bytes):
        try:
            return json.loads(schema)
        except (ValueError, RecursionError) as error:
            raise SchemaError(f"The schema is not JSON ({error}); give a dict or a pydantic model.") from None
    for method in ("model_json_schema", "json_schema"):
        if hasattr(schema, method):
            try:
                return getattr(schema, method)()
            except Exception as error:  # a user's class: whatever it raises, it has no schema
                raise SchemaError(f"{schema!r} gives no JSON schema ({' '.join(str(error).split())[:200]}).") from None
    raise SchemaError(f"The schema is {_kind(schema)}; expected a dict, JSON text or a pydantic model.")


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
