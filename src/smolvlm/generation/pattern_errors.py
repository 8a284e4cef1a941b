"""Which regular expression of a schema a compiler could not read: it names the expression, a user needs the property."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from smolvlm.generation.schema_limits import at


def wrong_pattern(schema: str, message: str) -> str | None:
    """A sentence about the pattern of `schema`, JSON text, that the compiler's `message` is about; None for another fault."""
    if "regex" not in message:
        return None
    named = [(where, pattern) for where, pattern in _patterns(json.loads(schema), "#") if pattern in message]
    if not named:
        return None
    where, pattern = max(named, key=lambda found: len(found[1]))  # a shorter one may be a part of it
    reason = message.rpartition("error: ")[2] if "error: " in message else message.partition(" in regex")[0]
    reason = " ".join(reason.split())[:200].rstrip(".")
    return (
        f"{at(where)} is {pattern!r:.60}, which cannot be followed ({reason}); expected a regular expression without "
        "look-around, backreferences and word boundaries."
    )


def _patterns(node: Any, where: str) -> Iterator[tuple[str, str]]:
    """Every pattern with its place."""
    if isinstance(node, list):
        for index, item in enumerate(node):
            yield from _patterns(item, f"{where}/{index}")
    if not isinstance(node, dict):
        return
    for key, item in node.items():
        if key == "pattern" and isinstance(item, str):
            yield f"{where}/pattern", item
        if key == "patternProperties" and isinstance(item, dict):
            yield from ((f"{where}/patternProperties", pattern) for pattern in item)
        yield from _patterns(item, f"{where}/{key}")
