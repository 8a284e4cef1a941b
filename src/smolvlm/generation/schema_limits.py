"""How large a schema may be: counted over the whole text before anything else looks at it, in one pass."""

from __future__ import annotations

import json
import math
from typing import Any

from smolvlm.errors import SchemaError

MAX_SCHEMA_CHARS = 200_000
MAX_DEPTH = 64
MAX_VALUES = 20_000  # objects, arrays, texts and numbers together
MAX_PROPERTIES = 1_000  # of one object
MAX_BRANCHES = 128  # of one anyOf, oneOf, allOf or prefixItems
MAX_ENUM = 1_000  # values of one enum
MAX_REFERENCES = 1_000
MAX_PATTERNS = 256
MAX_PATTERN_CHARS = 2_000  # of one pattern
MAX_ALL_PATTERN_CHARS = 20_000
MAX_LENGTH = 16_384  # characters of a string; the longest context takes fewer
MAX_COUNT = 4_096  # items or properties, each of which takes a token at least
MAX_MULTIPLE = 10_000  # multipleOf without its point and last zeros: a matcher has a state for each remainder
MAX_DIGITS = 15  # of a bound: what a float64 holds exactly

_LISTS = {"anyOf": MAX_BRANCHES, "oneOf": MAX_BRANCHES, "allOf": MAX_BRANCHES, "prefixItems": MAX_BRANCHES, "enum": MAX_ENUM}
_DICTS = ("properties", "patternProperties", "$defs", "definitions")


def require_small(schema: Any) -> None:
    """Raises SchemaError, naming the place, for a schema of plain JSON that is larger than a small model can use."""
    values = references = patterns = pattern_chars = depth = 0
    level: list[tuple[str, Any]] = [("", schema)]  # each value with the key that it stands under
    while level:
        depth += 1
        values += len(level)
        if depth > MAX_DEPTH:
            raise SchemaError(
                f"The schema is nested deeper than the limit of {MAX_DEPTH} levels (every object and list counts, also "
                "'properties' and '$defs'); put its inner parts side by side into $defs at its top, and refer to them by $ref."
            )
        if values > MAX_VALUES:
            raise SchemaError(f"The schema holds more than {MAX_VALUES} values; make it smaller.")
        below: list[tuple[str, Any]] = []
        for key, value in level:
            if isinstance(value, dict):
                if key in _DICTS:
                    _require(len(value), MAX_PROPERTIES, f"{key!r} has", "members")
                if key == "patternProperties":
                    patterns += len(value)
                    pattern_chars += sum(map(len, value))
                    _require(max(map(len, value), default=0), MAX_PATTERN_CHARS, "a pattern has", "characters")
                below += value.items()
            elif isinstance(value, list):
                _require(len(value), _LISTS.get(key, MAX_VALUES), f"{key!r} has", "items")
                below += [("", item) for item in value]
            elif isinstance(value, str):
                references += key == "$ref"
                if key == "pattern":
                    patterns += 1
                    pattern_chars += len(value)
                    _require(len(value), MAX_PATTERN_CHARS, "a pattern has", "characters")
        level = below
    _require(references, MAX_REFERENCES, "the schema has", "references")
    _require(patterns, MAX_PATTERNS, "the schema has", "patterns")
    _require(pattern_chars, MAX_ALL_PATTERN_CHARS, "the patterns of the schema have", "characters together")


def _require(count: int, limit: int, what: str, of_what: str) -> None:
    if count > limit:
        raise SchemaError(f"The schema is too large: {what} {count} {of_what}, expected at most {limit}.")


def at(where: str) -> str:
    """A place in a schema for an error's text: names may be long, and hold line ends."""
    shown = json.dumps(where, ensure_ascii=False)[1:-1] if not where.isprintable() else where
    return shown if len(shown) <= 120 else f"{shown[:40]}...{shown[-70:]}"


def number(value: Any, where: str) -> float:
    """A finite number. Raises SchemaError."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= 1.8e308:
        raise SchemaError(f"{at(where)} is {value!r:.60}; expected a number.")
    return value


def multiple(value: Any, where: str) -> int:
    """`multipleOf` as a whole number, without its point and last zeros: 0.25 is 25. Raises SchemaError."""
    if number(value, where) <= 0:
        raise SchemaError(f"{at(where)} is {value!r:.60}; expected a number above 0.")
    whole = int(repr(value).lower().partition("e")[0].replace(".", "").strip("0") or "1")
    if whole > MAX_MULTIPLE:
        raise SchemaError(
            f"{at(where)} is {value!r:.60}; multiples are followed up to {MAX_MULTIPLE} (or that with a point, "
            "as 0.05); round it, or check it in code."
        )
    return whole


def common_multiple(numbers: list[int]) -> int:
    return math.lcm(*numbers)
