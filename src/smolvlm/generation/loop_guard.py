"""Detects an answer that runs in circles: published users of these models report answers that end in repeated text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Loop(NamedTuple):
    """A confirmed loop: the first `start` tokens hold everything once; the tail repeats every `period` tokens."""

    start: int
    period: int


class LoopGuard:
    """Watches one answer's tokens for a tail that repeats with a period of up to `max_period` tokens.

    For each period p it keeps the number of newest tokens that equal the one p before them. Those tokens are a second
    or later copy of something. They are held back from the reader from the first on, for an answer must end before a
    loop, not in it; in ordinary text such a match breaks after a token or two and the tokens are let go.

    What confirms a loop, by its period (`needed`): ordinary text with words does not say the same thing four times in a
    row over more than 24 tokens; from 36 tokens on three times is enough. Text without a letter - numbers, rules, rows
    of a table or of a matrix - does repeat, so there it takes nine copies and 96 tokens. `has_words` tells the two
    apart; without it all text counts as words.

    A token costs one comparison and one addition over `max_period` numbers.
    """

    def __init__(self, max_period: int = 256, has_words: Callable[[Sequence[int]], bool] | None = None) -> None:
        periods = np.arange(1, max_period + 1)
        self.needed = np.where(periods <= 24, np.maximum(24, 3 * periods), np.maximum(72, 2 * periods))
        self.needed_without_words = np.maximum(96, 8 * periods)
        self.loop: Loop | None = None
        self._has_words = has_words
        self._max_period = max_period
        self._matched = np.zeros(max_period, dtype=np.int64)  # [p - 1]: newest tokens equal to those p before
        # Grows by doubling; `max_period` impossible ids in front spare the case of a short answer.
        self._tokens: npt.NDArray[np.int64] = np.full(4 * max_period, -1, dtype=np.int64)
        self._end = max_period

    def push(self, token_id: int) -> int:
        """Take one token; the number of newest tokens to hold back. Sets `loop` when one is confirmed."""
        if self._end == len(self._tokens):
            self._tokens = np.concatenate([self._tokens, np.full_like(self._tokens, -1)])
        earlier = self._tokens[self._end - self._max_period : self._end][::-1]  # [p - 1]: the token p before this one
        self._matched += 1
        self._matched *= earlier == token_id
        self._tokens[self._end] = token_id
        self._end += 1
        for index in np.flatnonzero(self._matched >= self.needed):
            period, matched = int(index) + 1, int(self._matched[index])
            if matched >= self.needed_without_words[index] or self._period_has_words(period):
                self.loop = Loop(start=self._end - self._max_period - matched, period=period)
                break
        return int(self._matched.max())

    def _period_has_words(self, period: int) -> bool:
        return self._has_words is None or self._has_words(self._tokens[self._end - period : self._end].tolist())
