"""One answer's sampler: from a row of logits to a token, in the order of `transformers`' processors and warpers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import FloatArray
from smolvlm.errors import EngineError
from smolvlm.generation.filters import draw
from smolvlm.options.generation import GenerationParams

BoolArray = npt.NDArray[np.bool_]
TopLogprobs = tuple[tuple[int, float], ...]

_LARGEST = float(np.finfo(np.float32).max)


class Sampled(NamedTuple):
    """A token; with `logprobs` on, its log-probability and the likeliest (id, log-probability) pairs, best first.

    Log-probabilities are the log softmax of the model's raw logits: before penalties, temperature, filters and grammar.
    """

    token_id: int
    logprob: float | None
    top: TopLogprobs


class Sampler:
    """Samples the tokens of one answer; owns its random generator, so a batch equals its members alone.

    `generated` grows by appending from call to call: the penalties' bookkeeping follows it and starts over when it
    shrinks. The row of logits is never written to.
    """

    def __init__(self, params: GenerationParams, prompt_ids: Sequence[int], vocab_size: int) -> None:
        self.params = params
        self.vocab_size = vocab_size
        self._prompt_ids = tuple(prompt_ids)
        self._random = np.random.Generator(np.random.PCG64(params.seed))
        self._reset()

    def next(self, logits: FloatArray, generated: Sequence[int], allowed: BoolArray | None = None) -> Sampled:
        """The next token after prompt + `generated`; `allowed` (vocab,) is the grammar's mask.

        `logits` is float32 (vocab,). Raises EngineError for NaN, for infinity, and when no token is left to choose.
        """
        logits = np.asarray(logits, dtype=np.float32)
        if logits.shape != (self.vocab_size,):
            raise EngineError(f"The engine gave logits of shape {logits.shape}; expected ({self.vocab_size},).")
        likeliest = int(logits.argmax())
        peak = float(logits[likeliest])  # argmax stops at the first NaN, so this one value tells of it
        if not math.isfinite(peak):
            raise EngineError(
                f"The engine gave logits whose largest is {peak}: the weights or the precision are broken; "
                "try dtype='float32', or download the checkpoint again."
            )
        scores = self._processed(logits, generated, allowed)
        token_id = likeliest if scores is logits else int(scores.argmax())
        if not self.params.greedy:
            token_id = self._draw(scores, float(scores[token_id]))
        return self.score(token_id, logits)

    def score(self, token_id: int, logits: FloatArray) -> Sampled:
        """`token_id` as if it had been sampled from `logits`: for tokens that a grammar chose."""
        count = self.params.logprobs
        if count is None:
            return Sampled(token_id, None, ())
        peak = logits.max()
        log_total = float(peak) + math.log(float(np.exp(logits - peak).sum(dtype=np.float64)))
        return Sampled(token_id, float(logits[token_id]) - log_total, _top(logits, count, log_total))

    def _processed(self, logits: FloatArray, generated: Sequence[int], allowed: BoolArray | None) -> FloatArray:
        """Penalties, bans and the grammar's mask on a copy; the row itself when none of them is on."""
        params = self.params
        penalised = params.repetition_penalty != 1.0 or params.presence_penalty or params.frequency_penalty
        if not (penalised or params.no_repeat_ngram_size or allowed is not None):
            return logits
        self._follow(generated)
        scores = logits.copy()
        if params.repetition_penalty != 1.0:
            ids = self._seen.ids
            values = scores[ids]
            with np.errstate(over="ignore", divide="ignore", invalid="ignore"):  # a tiny penalty is 0 in float32
                values = np.where(values < 0, values * params.repetition_penalty, values / params.repetition_penalty)
            scores[ids] = np.nan_to_num(values, nan=0.0, posinf=_LARGEST, neginf=-np.inf)
        if params.presence_penalty or params.frequency_penalty:
            scores[self._said.ids] -= params.presence_penalty + params.frequency_penalty * self._said.counts
        if allowed is not None:
            scores[~allowed] = -np.inf
        banned = self._banned()
        if banned:
            free = scores.copy()
            scores[banned] = -np.inf
            if scores.max() == -np.inf:  # the grammar leaves nothing else: it must win, or the answer is not valid
                scores = free
        if scores.max() == -np.inf:
            raise EngineError("No token is left to choose: the grammar and the engine's logits exclude each other.")
        return scores

    def _draw(self, scores: FloatArray, peak: float) -> int:
        params = self.params
        scale = np.float32(min(1.0 / params.temperature, 1e30))
        with np.errstate(over="ignore"):  # a tiny temperature sends all but the best to -inf: greedy, as it should be
            scaled = scores - np.float32(peak)
            scaled *= scale
        return draw(scaled, params.top_k, params.top_p, params.min_p, self._random.random)

    def _banned(self) -> list[int]:
        """Tokens that would complete an n-gram that prompt + answer already holds."""
        n = self.params.no_repeat_ngram_size
        if not n or len(self._history) + 1 < n:
            return []
        return list(self._ngrams.get(tuple(self._history[len(self._history) - n + 1 :]), ()))

    def _reset(self) -> None:
        self._followed = 0
        self._seen, self._said = _Tally(), _Tally()  # prompt and answer; the answer alone
        for token_id in self._prompt_ids:
            if 0 <= token_id < self.vocab_size:
                self._seen.add(token_id)
        self._history: list[int] = []
        self._ngrams: dict[tuple[int, ...], set[int]] = {}
        for token_id in self._prompt_ids:
            self._remember(token_id)

    def _remember(self, token_id: int) -> None:
        n = self.params.no_repeat_ngram_size
        if n:
            self._history.append(token_id)
            if len(self._history) >= n:
                prefix = tuple(self._history[-n:-1]) if n > 1 else ()
                self._ngrams.setdefault(prefix, set()).add(token_id)

    def _follow(self, generated: Sequence[int]) -> None:
        if len(generated) < self._followed:
            self._reset()
        for token_id in generated[self._followed :]:
            self._seen.add(token_id)
            self._said.add(token_id)
            self._remember(token_id)
        self._followed = len(generated)


class _Tally:
    """Distinct tokens and how often each came, as arrays that grow in place: a step costs one token, not all of them."""

    def __init__(self) -> None:
        self._places: dict[int, int] = {}
        self._ids = np.zeros(256, dtype=np.int64)
        self._counts = np.zeros(256, dtype=np.float32)

    def add(self, token_id: int) -> None:
        place = self._places.setdefault(token_id, len(self._places))
        if place == len(self._ids):
            self._ids = np.concatenate([self._ids, np.zeros_like(self._ids)])
            self._counts = np.concatenate([self._counts, np.zeros_like(self._counts)])
        self._ids[place] = token_id
        self._counts[place] += 1

    @property
    def ids(self) -> npt.NDArray[np.int64]:
        return self._ids[: len(self._places)]

    @property
    def counts(self) -> FloatArray:
        return self._counts[: len(self._places)]


def _top(logits: FloatArray, count: int, log_total: float) -> TopLogprobs:
    """The `count` likeliest tokens, best first, the lower id first among equals."""
    count = min(count, len(logits))
    if not count:
        return ()
    threshold = np.partition(logits, len(logits) - count)[len(logits) - count]
    ids = np.flatnonzero(logits >= threshold)
    ids = ids[np.lexsort((ids, -logits[ids]))][:count]
    return tuple((int(i), float(logits[i]) - log_total) for i in ids)
