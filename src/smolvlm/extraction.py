"""What `extract(..., details=True)` gives back: for each value of the document, its place in the answer and its log probability."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from smolvlm.answers import Answer

_DECODER = json.JSONDecoder()
_WHITE = " \t\n\r"


@dataclass(frozen=True)
class ExtractedField:
    """One value that holds no others. `text` is what stands at `answer.text[start:end]`, a string's quotation marks included.

    logprob: the sum over the tokens that write it; a token that also holds what stands beside it (`": "`) counts in whole. What
    the grammar leaves no choice of counts with the probability that the model gave it.
    """

    value: Any
    text: str
    start: int
    end: int
    logprob: float


@dataclass(frozen=True)
class Extracted:
    """`value` as `extract` gives it without details; `fields` by JSON pointer (RFC 6901): `/items/0/price`, "" for a lone value."""

    value: Any
    fields: Mapping[str, ExtractedField]
    answer: Answer = field(repr=False)


def fields_of(answer: Answer, decode: Callable[[Sequence[int]], str]) -> dict[str, ExtractedField]:
    """The values of an answer in JSON that was generated with `logprobs`. `decode` is the tokenizer's."""
    assert answer.logprobs is not None, "generated with logprobs"
    ids, ends = [token.token_id for token in answer.logprobs], [0]
    lead = len(decode(ids)) - len(decode(ids).lstrip(_WHITE))  # the answer's text is without the blank before it
    for count in range(1, len(ids) + 1):  # a character may be several tokens: it ends with the last of them
        ends.append(max(ends[-1], len(decode(ids[:count]).rstrip("\ufffd")) - lead))
    found = {}
    for pointer, value, start, end in _leaves(answer.text):
        logprob = sum(
            token.logprob
            for token, begins, stops in zip(answer.logprobs, ends, ends[1:], strict=False)
            if (begins < end and stops > start) or (begins == stops and start <= begins < end)
        )
        found[pointer] = ExtractedField(value, answer.text[start:end], start, end, logprob)
    return found


def _leaves(text: str) -> Iterator[tuple[str, Any, int, int]]:
    """(pointer, value, start, end) of each value without others in it, in the order of the text, which is valid JSON."""
    stack: list[tuple[str, int | None]] = []  # of open containers: their pointer, and the next index of a list
    pointer, at = "", 0
    while True:
        at = _skip(text, at)
        if text[at] in "{[":
            after = _skip(text, at + 1)
            if text[after] in "}]":
                yield pointer, _DECODER.raw_decode(text, at)[0], at, after + 1
                at = after + 1
            else:
                stack.append((pointer, 0 if text[at] == "[" else None))
                pointer, at = _next_pointer(text, after, stack)
                continue
        else:
            value, end = _DECODER.raw_decode(text, at)
            yield pointer, value, at, end
            at = end
        while True:
            at = _skip(text, at)
            if not stack:
                return
            if text[at] == ",":
                pointer, at = _next_pointer(text, _skip(text, at + 1), stack)
                break
            stack.pop()
            at += 1


def _next_pointer(text: str, at: int, stack: list[tuple[str, int | None]]) -> tuple[str, int]:
    """The pointer of the value whose key, or self, begins at `at`, and where the value begins."""
    above, index = stack[-1]
    if index is not None:
        stack[-1] = above, index + 1
        return f"{above}/{index}", at
    key, at = _DECODER.raw_decode(text, at)
    escaped = str(key).replace("~", "~0").replace("/", "~1")
    return f"{above}/{escaped}", _skip(text, _skip(text, at) + 1)  # past the colon


def _skip(text: str, at: int) -> int:
    while at < len(text) and text[at] in _WHITE:
        at += 1
    return at
