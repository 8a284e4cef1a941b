"""What a caller may ask of generation: one frozen dataclass, checked when it is made. Each default lives only here."""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smolvlm.errors import ParamsError

MAX_STOP_STRINGS = 64
MAX_STOP_CHARS = 1024
SPECIAL_TOKENS = ("strip", "keep")
MAX_TOP_LOGPROBS = 20  # OpenAI's limit for `top_logprobs`


@dataclass(frozen=True, kw_only=True)
class GenerationParams:
    """How one answer is sampled and when it ends. Raises ParamsError that names the value and its legal range.

    Sampling follows the order of `transformers`: repetition penalty and n-gram ban over prompt and answer, presence and
    frequency penalty (OpenAI: over the answer only), temperature, top-k, top-p, min-p. `temperature=0` is greedy: the
    likeliest token, the lowest id among equals; the three filters then change nothing.
    """

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_k: int = 0  # 0: off
    top_p: float = 1.0  # 1: off
    min_p: float = 0.0  # 0: off
    repetition_penalty: float = 1.0  # 1: off; over 1 discourages what prompt or answer holds (arXiv 1909.05858)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0  # 0: off
    stop: tuple[str, ...] = ()  # the answer is cut before the first of these; a single string is taken too
    seed: int | None = None  # None: fresh entropy for every answer
    logprobs: int | None = None  # None: off; n: the token's own log-probability and the n likeliest
    loop_guard: bool = True
    ignore_eos: bool = False  # for benchmarks: the stop token is an ordinary one
    special_tokens: Literal["strip", "keep"] = "strip"  # whether the text shows the special tokens of the answer, as DocTags need

    def __post_init__(self) -> None:
        self._int("max_new_tokens", 1, None)
        self._float("temperature", 0.0, 100.0)
        self._int("top_k", 0, None, "0 turns it off")
        self._float("top_p", 0.0, 1.0, "1 turns it off", above_low=True)
        self._float("min_p", 0.0, 1.0, "0 turns it off")
        self._float("repetition_penalty", 0.0, 100.0, "1 turns it off", above_low=True)
        self._float("presence_penalty", -2.0, 2.0)
        self._float("frequency_penalty", -2.0, 2.0)
        self._int("no_repeat_ngram_size", 0, None, "0 turns it off")
        self._set("stop", _stop_strings(self.stop))
        if self.seed is not None:
            self._int("seed", 0, 2**64 - 1, "None takes fresh entropy")
        if self.logprobs is not None:
            self._int("logprobs", 0, MAX_TOP_LOGPROBS, "None turns them off")
        if self.special_tokens not in SPECIAL_TOKENS:
            raise ParamsError(f"special_tokens={_short(self.special_tokens)}: expected one of {', '.join(SPECIAL_TOKENS)}.")
        for name in ("loop_guard", "ignore_eos"):
            if not isinstance(getattr(self, name), bool):
                raise ParamsError(f"{name}={getattr(self, name)!r}: expected True or False.")

    @property
    def greedy(self) -> bool:
        """Whether no randomness is used."""
        return self.temperature == 0.0

    def _set(self, name: str, value: object) -> None:
        object.__setattr__(self, name, value)  # the way a frozen dataclass normalises its own fields

    def _int(self, name: str, low: int, high: int | None, hint: str = "") -> None:
        value = getattr(self, name)
        span = f"of at least {low}" if high is None else f"from {low} to {high}"
        legal = f"expected a whole number {span}" + (f" ({hint})." if hint else ".")
        try:
            number = None if isinstance(value, bool) else operator.index(value)
        except TypeError:
            number = None
        if number is None or number < low or (high is not None and number > high):
            raise ParamsError(f"{name}={_short(value)}: {legal}")
        self._set(name, number)

    def _float(self, name: str, low: float, high: float, hint: str = "", *, above_low: bool = False) -> None:
        value = getattr(self, name)
        span = f"{'over' if above_low else 'from'} {low:g} up to {high:g}"
        legal = f"expected a number {span}" + (f" ({hint})." if hint else ".")
        try:
            number = math.nan if isinstance(value, bool | str | bytes) else float(value)
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not low <= number <= high or (above_low and number == low):  # NaN fails the first test
            raise ParamsError(f"{name}={_short(value)}: {legal}")
        self._set(name, number)


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _stop_strings(stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    if isinstance(stop, str):
        stop = (stop,)
    if not isinstance(stop, Sequence) or isinstance(stop, bytes | bytearray):
        raise ParamsError(f"stop={_short(stop)}: expected a string or a sequence of strings.")
    if len(stop) > MAX_STOP_STRINGS:
        raise ParamsError(f"stop holds {len(stop)} strings: expected at most {MAX_STOP_STRINGS}.")
    for item in stop:
        if not isinstance(item, str) or not 0 < len(item) <= MAX_STOP_CHARS:
            raise ParamsError(f"stop holds {_short(item)}: expected strings of 1..{MAX_STOP_CHARS} characters.")
    return tuple(dict.fromkeys(stop))
