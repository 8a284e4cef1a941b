"""A prompt between the chat template and the tokenizer: stretches that remember who wrote them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class TextSegment:
    """A stretch of the prompt. Only a `trusted` one, written by us and not typed, can hold control tokens."""

    text: str
    trusted: bool = False


@dataclass(frozen=True)
class IdSegment:
    """Exact token ids that stand in the prompt as they are."""

    ids: tuple[int, ...]


Segment: TypeAlias = TextSegment | IdSegment
