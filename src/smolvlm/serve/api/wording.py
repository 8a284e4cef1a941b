"""How values and places of a request are named to its client: one line each, printable and short."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

_SHOWN_CHARS = 60
_PATH_CHARS = 200
_SHAPES: dict[type, str] = {list: "a list", bool: "a boolean", type(None): "null"}


def path_of(places: Iterable[str | int]) -> str:
    """Where something stands, as OpenAI writes it: `messages[0].content[1].image_url`."""
    path = ""
    for place in places:
        path += f"[{place}]" if isinstance(place, int) else f"{'.' if path else ''}{place[:_PATH_CHARS]}"
    return line(path)[:_PATH_CHARS]


def shape_of(value: Any) -> str:
    """What a JSON value is: `the number 5`, `a list`, `an object with 'url'`."""
    if isinstance(value, Mapping):
        keys = ", ".join(short(key) for key in list(value)[:5])
        return f"an object with {keys}" if keys else "an empty object"
    if isinstance(value, str):
        return f"the string {short(value)}" if value else "an empty string"
    if isinstance(value, list):
        return "a list" if value else "an empty list"
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"the number {line(repr(value)[:_SHOWN_CHARS])}"
    return _SHAPES.get(type(value), "something else")


def short(text: Any) -> str:
    """A text in quotation marks, its middle cut out where it is long."""
    shown = repr(line(str(text)))
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[: _SHOWN_CHARS - 4]}...{shown[0]}"


def line(text: str) -> str:
    """Printable characters only."""
    return "".join(c if c.isprintable() else "?" for c in text[:400])[:300]
