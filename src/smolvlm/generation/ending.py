"""How to end a JSON document soon: from any state of a grammar, a short run of tokens that completes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import llguidance
import numpy as np
import numpy.typing as npt
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

IntArray = npt.NDArray[np.int64]
BitArray = npt.NDArray[np.int32]

_SEARCH_DEPTH = 4  # tokens
_SEARCH_WIDTH = 80  # tokens tried at a place: the shortest, ASCII marks before letters and digits
_SEARCH_PLACES = 8


class JsonState(NamedTuple):
    """Where in a JSON text we are; a grammar's mask does not tell whether a `}` would be text or structure."""

    in_string: bool = False
    escaped: bool = False
    number_chars: int = 0  # characters of the number being written

    def after(self, text: bytes) -> JsonState:
        in_string, escaped, number_chars = self
        for byte in text:
            if in_string:
                if escaped:
                    escaped = False
                elif byte == 0x5C:  # backslash
                    escaped = True
                elif byte == 0x22:  # quote
                    in_string = False
            else:
                in_string = byte == 0x22
                in_number = byte in b"-0123456789" or (byte in b"+.eE" and number_chars > 0)
                number_chars = number_chars + 1 if in_number else 0
        return JsonState(in_string, escaped, number_chars)


Memo: TypeAlias = dict[bytes, list[int]]
_Place: TypeAlias = tuple[llguidance.LLMatcher, JsonState, BitArray, list[int]]


class EndingPlanner:
    """Plans endings over one tokenizer. Tokens are ranked once; a plan is a walk that takes the best allowed one.

    Inside a string the quote comes first; outside, brackets that close, then what the shortest values are made of.
    Where no such token is allowed (a minimum length, a pattern, an enum) a search looks a few tokens ahead for a place
    where one is; when it sees none, the walk goes on by a token of its choice, long ones first, and searches again.
    """

    def __init__(self, texts: Sequence[bytes], selectable: BitArray, eos_id: int) -> None:
        self._texts = texts
        self._eos_id = eos_id
        self._selectable = selectable  # one bit a token: never special tokens, but the stop tokens
        self._inside = _ranked(texts, _inside_rank)
        self._outside = _ranked(texts, _outside_rank)
        usable = [i for i, text in enumerate(texts) if text and _bit(selectable, i)]
        usable.sort(key=lambda i: (len(texts[i]), not texts[i].isascii(), texts[i].isalnum(), i))
        self._short: IntArray = np.array(usable, dtype=np.int64)

    def mask(self, matcher: llguidance.LLMatcher) -> BitArray:
        """The tokens that the grammar allows next, as bits (vocab / 32,)."""
        bits = allocate_token_bitmask(1, 32 * len(self._selectable))
        fill_next_token_bitmask(matcher, bits)
        allowed: BitArray = bits[0] & self._selectable
        return allowed

    def completes(self, matcher: llguidance.LLMatcher, plan: list[int]) -> bool:
        """Whether `plan` makes a complete document of what the matcher has."""
        return bool(matcher.validate_tokens([*plan, self._eos_id]) == len(plan) + 1)

    def plan(
        self, matcher: llguidance.LLMatcher, state: JsonState, limit: int, old: list[int], memo: Memo
    ) -> list[int] | None:
        """Tokens, at most `limit`, after which the document is complete; None when none were found.

        `old` is a plan that held one token ago: from where its current string ends it mostly still does. `memo` keeps
        what searches found; it belongs to one answer, so that answers do not depend on each other.
        """
        tail = old[self._string_end(old, state) :]
        for choice in (self._short[::-1], self._short):
            plan, chose = self._walk(matcher.deep_copy(), state, limit, choice, tail, memo)
            if plan is not None or not chose:
                return plan
        return None

    def _string_end(self, plan: list[int], state: JsonState) -> int:
        """The index in `plan` of the token that ends the string we are in."""
        for index, token in enumerate(plan):
            state = state.after(self._texts[token])
            if not state.in_string:
                return index
        return len(plan)

    def _walk(
        self, matcher: llguidance.LLMatcher, state: JsonState, limit: int, choice: IntArray, tail: list[int], memo: Memo
    ) -> tuple[list[int] | None, bool]:
        """One try, which uses the matcher up; also whether `choice` mattered (else another does no better)."""
        plan: list[int] = []
        chose = False
        while not matcher.is_accepting():
            if tail and len(plan) + len(tail) <= limit and self.completes(matcher, tail):
                return plan + tail, chose
            allowed = self.mask(matcher)
            closer = self._closer(allowed, state)
            steps = self._search_once(matcher, state, allowed, memo) if closer is None else [closer]
            if not steps:
                chose = True
                steps = _allowed(allowed, choice, 1)
            if not steps or len(plan) + len(steps) > limit or not matcher.consume_tokens(steps):
                return None, chose
            plan += steps
            state = state.after(b"".join(self._texts[i] for i in steps))
        return plan, chose

    def _closer(self, allowed: BitArray, state: JsonState) -> int | None:
        """The best token that brings the document nearer to its end, if one is allowed."""
        if state.escaped:  # a quote here would be text
            return None
        hits = _allowed(allowed, self._inside if state.in_string else self._outside, 1)
        # A digit begins a value, but in a number it ends nothing.
        return None if not hits or (state.number_chars and self._texts[hits[0]].isdigit()) else hits[0]

    def _search_once(self, matcher: llguidance.LLMatcher, state: JsonState, allowed: BitArray, memo: Memo) -> list[int]:
        """`_search`, but the same mask is searched once; what was found there is tried here."""
        key = allowed.tobytes()
        if key not in memo:
            memo[key] = self._search(matcher, state, allowed)
        steps = memo[key]
        return steps if matcher.validate_tokens(steps) == len(steps) else []

    def _search(self, matcher: llguidance.LLMatcher, state: JsonState, allowed: BitArray) -> list[int]:
        """Breadth first: the fewest tokens to a place that has a closer or is an end; empty when none is near.

        Places with the same mask count as one, which keeps the search small (and blind to counting, as in a minimum
        length: there it finds nothing until the count is reached).
        """
        seen = {allowed.tobytes()}
        frontier: list[_Place] = [(matcher, state, allowed, [])]
        while frontier and len(frontier[0][3]) < _SEARCH_DEPTH:
            place, place_state, place_mask, path = frontier.pop(0)
            for token in _allowed(place_mask, self._short, _SEARCH_WIDTH):
                ahead = place.deep_copy()
                if not ahead.consume_token(token):
                    continue
                mask, after = self.mask(ahead), place_state.after(self._texts[token])
                if ahead.is_accepting() or self._closer(mask, after) is not None:
                    return [*path, token]
                if (key := mask.tobytes()) not in seen and len(seen) < _SEARCH_PLACES:
                    seen.add(key)
                    frontier.append((ahead, after, mask, [*path, token]))
        return []


def _bit(bits: BitArray, token: int) -> bool:
    return bool((int(bits[token >> 5]) >> (token & 31)) & 1)


def _allowed(bits: BitArray, ids: IntArray, count: int) -> list[int]:
    """The first `count` of `ids` whose bit is set."""
    found: list[int] = []
    start, size = 0, 256
    while start < len(ids) and len(found) < count:  # by growing parts: mostly the first one has enough
        part = ids[start : start + size]
        found += part[np.flatnonzero((bits[part >> 5] >> (part & 31)) & 1)].tolist()
        start, size = start + size, 4 * size
    return found[:count]


def _ranked(texts: Sequence[bytes], rank: Callable[[bytes], tuple[int, int] | None]) -> IntArray:
    ranked = [(place, i) for i, text in enumerate(texts) if text and (place := rank(text)) is not None]
    return np.array([i for _, i in sorted(ranked)], dtype=np.int64)


def _inside_rank(text: bytes) -> tuple[int, int] | None:
    """Inside a string: the quote, best with brackets that close behind it."""
    if text[:1] != b'"':
        return None
    closers = len(text) - 1
    if not text[1:].strip(b"}]"):
        return (0, -closers)
    return (1, closers) if text in (b'":', b'":"', b'",', b'","') else None


_OUTSIDE = (b',"', b",", b":", b"null", b'""', b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"8", b"9", b"0", b"true",
            b"false", b"[]", b'"', b"[", b"{}", b"{", b'{"', b"t", b"n", b"f", b"-", b".")  # fmt: skip


def _outside_rank(text: bytes) -> tuple[int, int] | None:
    """Outside strings: brackets that close, then the next thing required, then the cheapest beginning of a value."""
    if not text.strip(b"}]"):
        return (0, -len(text))
    return (1, _OUTSIDE.index(text)) if text in _OUTSIDE else None
