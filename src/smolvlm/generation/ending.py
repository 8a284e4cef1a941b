"""How to end a JSON document soon: from any state of a grammar, a short run of tokens that completes it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.errors import GrammarError
from smolvlm.generation.matching import BitArray, Effort, Matcher

IntArray = npt.NDArray[np.int64]

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
_Place: TypeAlias = tuple[JsonState, BitArray, list[int]]


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

    def mask(self, matcher: Matcher) -> BitArray:
        """The tokens that the grammar allows next, as bits (vocab / 32,)."""
        allowed: BitArray = matcher.mask() & self._selectable
        return allowed

    def completes(self, matcher: Matcher, plan: list[int]) -> bool:
        """Whether `plan` makes a complete document of what the matcher has."""
        return matcher.fitting([*plan, self._eos_id]) == len(plan) + 1

    def plan(self, matcher: Matcher, state: JsonState, limit: int, old: list[int], memo: Memo, effort: Effort) -> list[int] | None:
        """Tokens, at most `limit`, after which the document is complete; None when none were found with this `effort`.

        Raises GrammarError when a limit of the grammar was met on the way, which says nothing of `matcher` itself.

        `old` is a plan that held one token ago: from where its current string ends it mostly still does. `memo` keeps
        what searches found; it belongs to one answer, so that answers do not depend on each other.
        """
        tail = old[self._string_end(old, state) :]
        met: GrammarError | None = None
        for choice in (self._short[::-1], self._short):
            try:
                plan, chose = self._walk(matcher.copy(), state, limit, choice, tail, memo, effort)
            except GrammarError as error:
                met = error
                continue
            if plan is not None or not chose:
                return plan
        if met is not None:
            raise met
        return None

    def try_out(self, matcher: Matcher, times: int, tokens: int) -> None:
        """Begin some long documents at random, always the same ones. Raises GrammarError where a limit is met."""
        rng = np.random.default_rng(0)
        for _ in range(times):
            trial, state = matcher.copy(), JsonState()
            for _ in range(tokens):
                ids = _allowed(self.mask(trial), rng.permutation(self._short), 8)
                if not ids:
                    break
                # What goes on inside a string is where patterns count.
                token = next((i for i in ids if state.in_string and b'"' not in self._texts[i]), ids[0])
                if not trial.consume([token]):
                    break
                state = state.after(self._texts[token])

    def _string_end(self, plan: list[int], state: JsonState) -> int:
        """The index in `plan` of the token that ends the string we are in."""
        for index, token in enumerate(plan):
            state = state.after(self._texts[token])
            if not state.in_string:
                return index
        return len(plan)

    def _walk(
        self, matcher: Matcher, state: JsonState, limit: int, choice: IntArray, tail: list[int], memo: Memo, effort: Effort
    ) -> tuple[list[int] | None, bool]:
        """One try, which uses the matcher up; also whether `choice` mattered (else another does no better)."""
        plan: list[int] = []
        chose = False
        while not matcher.is_accepting:
            if tail and len(plan) + len(tail) <= limit and self.completes(matcher, tail):
                return plan + tail, chose
            if not effort.take():
                return None, chose
            steps = self._forced(matcher)
            if not steps:
                allowed = self.mask(matcher)
                closer = self._closer(allowed, state)
                steps = self._search_once(matcher, state, allowed, memo, effort) if closer is None else [closer]
            if not steps:
                chose = True
                steps = _allowed(allowed, choice, 1)
            if not steps or len(plan) + len(steps) > limit or not matcher.consume(steps):
                return None, chose
            plan += steps
            state = state.after(b"".join(self._texts[i] for i in steps))
        return plan, chose

    def _forced(self, matcher: Matcher) -> list[int]:
        """Tokens that must come, as those of a key; none where one of them is not text."""
        forced = matcher.forced()
        return forced if all(self._texts[i] for i in forced) else []

    def _closer(self, allowed: BitArray, state: JsonState) -> int | None:
        """The best token that brings the document nearer to its end, if one is allowed."""
        if state.escaped:  # a quote here would be text
            return None
        hits = _allowed(allowed, self._inside if state.in_string else self._outside, 1)
        # A digit begins a value, but in a number it ends nothing.
        return None if not hits or (state.number_chars and self._texts[hits[0]].isdigit()) else hits[0]

    def _search_once(self, matcher: Matcher, state: JsonState, allowed: BitArray, memo: Memo, effort: Effort) -> list[int]:
        """`_search`, but the same mask is searched once; what was found there is tried here."""
        key = allowed.tobytes()
        steps = memo.get(key)
        if steps is None:
            steps = self._search(matcher, state, allowed, effort)
            if not effort.spent:
                memo[key] = steps
        return steps if matcher.fitting(steps) == len(steps) else []

    def _search(self, matcher: Matcher, state: JsonState, allowed: BitArray, effort: Effort) -> list[int]:
        """Breadth first: the fewest tokens to a place that has a closer or is an end; empty when none is near.

        Places with the same mask count as one, which keeps the search small (and blind to counting, as in a minimum
        length: there it finds nothing until the count is reached).
        """
        seen = {allowed.tobytes()}
        frontier: list[_Place] = [(state, allowed, [])]
        while frontier and len(frontier[0][2]) < _SEARCH_DEPTH:
            place_state, place_mask, path = frontier.pop(0)
            matcher.consume(path)
            try:
                for token in _allowed(place_mask, self._short, _SEARCH_WIDTH):
                    if not effort.take():
                        return []
                    if not matcher.consume([token]):
                        continue
                    mask, after = self.mask(matcher), place_state.after(self._texts[token])
                    if matcher.is_accepting or self._closer(mask, after) is not None:
                        matcher.rollback(1)
                        return [*path, token]
                    matcher.rollback(1)
                    if (key := mask.tobytes()) not in seen and len(seen) < _SEARCH_PLACES:
                        seen.add(key)
                        frontier.append((after, mask, [*path, token]))
            finally:
                matcher.rollback(len(path))
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


_OUTSIDE = (
    b',"',
    b",",
    b":",
    b"null",
    b"n",  # a vocabulary without the whole word; before what opens an object that may hold itself
    b'""',
    b"0",
    b"1",
    b"2",
    b"3",
    b"4",
    b"5",
    b"6",
    b"7",
    b"8",
    b"9",
    b"true",
    b"t",
    b"false",
    b"f",
    b"[]",
    b'"',
    b"[",
    b"{}",
    b"{",
    b'{"',
    b"-",
    b".",
)


def _outside_rank(text: bytes) -> tuple[int, int] | None:
    """Outside strings: brackets that close, then the next thing required, then the cheapest beginning of a value."""
    if not text.strip(b"}]"):
        return (0, -len(text))
    return (1, _OUTSIDE.index(text)) if text in _OUTSIDE else None
