"""When an answer is right, and how sure a share of right answers is."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence

from smolvlm.errors import EvalError
from smolvlm.synth.words import PLACES

Z_95 = 1.959963984540054  # the normal distribution's 97.5 % point

_SEPARATOR = re.compile(r",\s*(?:and\s+)?|\s+and\s+")
_ARTICLE = re.compile(r"^(?:an?|the)\s+")
# "top left" before "top": the alternatives are tried in order.
_PLACE = re.compile(r"\s+(?:at|on|in)\s+the\s+(?:" + "|".join(sorted((p for row in PLACES for p in row), key=len, reverse=True)) + r")$")


def normalized(text: str) -> str:
    """Case-folded, without outer spaces and one final full stop."""
    return text.strip().removesuffix(".").strip().casefold()


def exact(expected: str, answer: str) -> bool:
    """Whether the answer is the expected one, but for case, outer spaces and a final full stop."""
    return normalized(expected) == normalized(answer)


def things(caption: str) -> list[str]:
    """What a caption names, in order, without articles and places: "a red star on the left and a dog" -> red star, dog."""
    parts = (_PLACE.sub("", part.strip()) for part in _SEPARATOR.split(normalized(caption)))
    return [_ARTICLE.sub("", part).strip() for part in parts if part]


def caption_right(expected: str, answer: str) -> bool:
    """Whether the answer names every thing with its colour and invents none; order and places are not counted."""
    return Counter(things(expected)) == Counter(things(answer))


def wilson(right: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for a share, (low, high) in 0..1; (0, 1) for no items.

    Unlike the plain normal interval it stays inside 0..1 and is not empty at 0 or all right (Wilson, JASA 22, 1927).
    Raises EvalError for counts that cannot be.
    """
    if not 0 <= right <= total:
        raise EvalError(f"{right} right of {total}: expected 0 <= right <= total.")
    if total == 0:
        return 0.0, 1.0
    share = right / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    # Exactly 0 and 1 at the ends, where rounding leaves 1e-17.
    low = 0.0 if right == 0 else (centre - spread) / scale
    high = 1.0 if right == total else (centre + spread) / scale
    return low, high


def constant_baseline(expected: Sequence[str]) -> tuple[str, float]:
    """The commonest expected answer and its share: what a model scores that never looks. ("", 0.0) for no items."""
    counts = Counter(normalized(answer) for answer in expected)
    if not counts:
        return "", 0.0
    answer, times = min(counts.items(), key=lambda pair: (-pair[1], pair[0]))  # ties by name: the same in every run
    return answer, times / len(expected)
