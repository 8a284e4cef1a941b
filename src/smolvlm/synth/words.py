"""How things are said: articles, lists, places. One function for each rule, used by every generator and by the metrics."""

from __future__ import annotations

from collections.abc import Sequence

PLACES = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)  # by row and column of the 3 x 3 zones of a frame
_PREPOSITION = {"centre": "in the", "left": "on the", "right": "on the"}


def with_article(phrase: str) -> str:
    """As in "an apple", "a red star"."""
    return f"{'an' if phrase[0] in 'aeiou' else 'a'} {phrase}"


_IRREGULAR = {"fish": "fish", "sheep": "sheep", "leaf": "leaves", "mouse": "mice", "person": "people"}


def plural(phrase: str) -> str:
    """As in "dogs", "red crosses", "butterflies" for the names that occur here."""
    head, space, last = phrase.rpartition(" ")
    if last in _IRREGULAR:
        many = _IRREGULAR[last]
    elif last.endswith(("s", "sh", "ch", "x")):
        many = f"{last}es"
    elif last.endswith("y") and last[-2] not in "aeiou":
        many = f"{last[:-1]}ies"
    else:
        many = f"{last}s"
    return f"{head}{space}{many}"


def listed(parts: Sequence[str]) -> str:
    """As in "a, b and c"."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def at_place(place: str) -> str:
    """As in "at the top left", "in the centre"."""
    return f"{_PREPOSITION.get(place, 'at the')} {place}"
