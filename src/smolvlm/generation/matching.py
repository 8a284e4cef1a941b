"""One `llguidance` matcher with the limits that every grammar of ours has; a limit that is met is an error, never an end.

The library itself reports no errors: a matcher that met a limit calls itself stopped, as one whose document is complete.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import llguidance
import numpy as np
import numpy.typing as npt
from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

from smolvlm.errors import GrammarError, SchemaError
from smolvlm.generation.pattern_errors import wrong_pattern

BitArray = npt.NDArray[np.int32]
T = TypeVar("T")

# Of one mask or compilation. Ordinary schemas stay below a tenth of each; the states of a lexer take 1 to 2 kB each.
_LIMITS: Mapping[str, Any] = {
    "initial_lexer_fuel": 1_000_000,
    "step_lexer_fuel": 100_000,
    "step_max_items": 20_000,
    "max_items_in_row": 2_000,
    "max_lexer_states": 30_000,
    "max_grammar_size": 200_000,
    "verbose_errors": False,
}


class Effort:
    """An allowance of masks and of this thread's processor time."""

    def __init__(self, masks: int, seconds: float) -> None:
        self._masks, self._seconds = masks, seconds
        self._looked = time.thread_time()

    def add(self, masks: int, seconds: float) -> None:
        """Allow so much more, from now on."""
        self._masks += masks
        self._seconds += seconds
        self._looked = time.thread_time()

    def take(self) -> bool:
        """Count one mask; whether it may still be computed."""
        self._masks -= 1
        if self._masks % 16 == 0:  # looking at the clock takes as long as a mask
            now = time.thread_time()
            self._seconds -= now - self._looked
            self._looked = now
        return not self.spent

    @property
    def spent(self) -> bool:
        return self._masks <= 0 or self._seconds <= 0


class Matcher:
    """The state of a document under a grammar. Every method raises GrammarError once a limit was met."""

    def __init__(self, inner: llguidance.LLMatcher, width: int) -> None:
        """`width`: tokens of the vocabulary, in whole words of 32."""
        self._inner = inner
        self._width = width

    @classmethod
    def for_schema(cls, tokenizer: llguidance.LLTokenizer, schema: str) -> Matcher:
        """A matcher at the beginning of a document of `schema`, JSON text. Raises SchemaError for what `llguidance` does not take."""
        try:
            # Flexible whitespace lets a small model write blanks for ever.
            text = llguidance.LLMatcher.grammar_from_json_schema(schema, overrides={"whitespace_flexible": False})
            limits = llguidance.LLParserLimits(**_LIMITS)
            inner = _guarded(lambda: llguidance.LLMatcher(tokenizer, text, log_level=0, limits=limits))
        except (ValueError, GrammarError) as error:
            raise SchemaError(f"The schema cannot be compiled: {first_line(error)}.") from None
        if inner.is_error():
            raise SchemaError(wrong_pattern(schema, inner.get_error()) or _explain(inner.get_error()))
        return cls(inner, 32 * ((tokenizer.vocab_size + 31) // 32))

    def copy(self) -> Matcher:
        """An independent matcher in the same state."""
        return Matcher(self._inner.deep_copy(), self._width)

    @property
    def is_accepting(self) -> bool:
        """Whether the text so far is a whole document."""
        return bool(self._checked(self._inner.is_accepting))

    @property
    def is_stopped(self) -> bool:
        """Whether the document is complete and nothing more may come."""
        return bool(self._checked(self._inner.is_stopped))

    def mask(self) -> BitArray:
        """The tokens that may come next, as bits (vocab / 32,)."""
        bits = allocate_token_bitmask(1, self._width)
        self._checked(lambda: fill_next_token_bitmask(self._inner, bits))
        row: BitArray = bits[0]
        return row

    def consume(self, tokens: Sequence[int]) -> bool:
        """Take all `tokens`, or none of them where one is not allowed."""
        if self.fitting(tokens) < len(tokens):
            return False
        return bool(self._checked(lambda: self._inner.consume_tokens(list(tokens))))

    def rollback(self, count: int) -> None:
        """Forget the newest `count` tokens."""
        if count:
            self._checked(lambda: self._inner.rollback(count))

    def fitting(self, tokens: Sequence[int]) -> int:
        """How many of `tokens` could be taken."""
        return int(self._checked(lambda: self._inner.validate_tokens(list(tokens))))

    def forced(self) -> list[int]:
        """The tokens whose text is the only one possible now."""
        return list(self._checked(self._inner.compute_ff_tokens))

    def _checked(self, work: Callable[[], T]) -> T:
        result = _guarded(work)
        if self._inner.is_error():
            reason = first_line(self._inner.get_error())
            raise GrammarError(f"The schema is too complex to follow ({reason}); simplify its patterns, or shorten it.")
        return result


def first_line(error: object) -> str:
    """The beginning of what another library says, without the point at its end."""
    return (str(error).strip().splitlines() or ["unknown error"])[0][:200].rstrip(".:")


def _guarded(work: Callable[[], T]) -> T:
    """`work()`; a panic of the Rust library, which no `except Exception` sees, is a GrammarError."""
    try:
        return work()
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise GrammarError(f"The schema cannot be followed (a defect of llguidance: {first_line(error)}).") from None


def _explain(message: str) -> str:
    """`llguidance`'s reason as one sentence with a remedy."""
    line = first_line(message)
    if "oneOf" in line:
        return "oneOf in the schema has branches that may overlap: use anyOf, or give each branch a distinct const."
    if "Unimplemented keys" in line:
        return f"The schema uses keywords that are not supported ({line.partition(':')[2].strip()}): remove them."
    if "regex is empty" in line or "too many" in line or "too large" in line:
        return f"The schema is too complex ({line}); simplify its patterns, or shorten it."
    return f"The schema cannot be used: {line}."
