"""The decode loop: live requests step together through `engine.decode`, each with its own sampler, text and end.

`generate` runs a fixed set of requests to their ends. Who lets requests join and leave between steps (the server) calls
`LiveAnswer.step` and `advance` itself.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from smolvlm.engines.base import Engine, FloatArray, SeqHandle
from smolvlm.generation.grammar import Grammar
from smolvlm.generation.loop_guard import LoopGuard
from smolvlm.generation.sampler import Sampled, Sampler, TopLogprobs
from smolvlm.generation.sentence_guard import SentenceGuard
from smolvlm.generation.stopping import AnswerText, TextStream
from smolvlm.options.generation import GenerationParams
from smolvlm.prompt.context import check_context

FinishReason: TypeAlias = Literal["stop", "length", "repetition", "cancelled"]


@dataclass(frozen=True)
class Request:
    """A prefilled sequence to be continued: `logits` (vocab,) are those after the last of `prompt_ids`."""

    seq: SeqHandle
    logits: FloatArray
    prompt_ids: Sequence[int]
    params: GenerationParams = field(default_factory=GenerationParams)
    grammar: Grammar | None = None


class TokenEvent(NamedTuple):
    """One more token of one answer. The last event of an answer has a `finish_reason`.

    `text_delta` may be empty, and may hold the text of earlier tokens that were held back; the first is without the blank
    in front that chat templates write there. `visible_tokens` is how many
    of the answer's tokens belong to the text after all cuts; it is final in the last event. `settled_tokens` of them are
    certain already: their text is given out, so no cut can take them back.
    """

    request_index: int
    token_id: int
    text_delta: str
    logprob: float | None
    top_logprobs: TopLogprobs
    finish_reason: FinishReason | None
    visible_tokens: int
    settled_tokens: int


@dataclass(frozen=True)
class Generated:
    """A whole answer as the reader sees it: the stop token and everything that was cut are not in it.

    A token that a stop string cut in two is in `token_ids`, while `text` ends inside it.
    """

    token_ids: tuple[int, ...]
    text: str
    finish_reason: FinishReason
    logprobs: tuple[float, ...]  # one a token, or empty when they were not asked for
    top_logprobs: tuple[TopLogprobs, ...]
    sampled_ids: tuple[int, ...]  # every token that was sampled, the stop token and cut ones too


def generate(
    engine: Engine,
    requests: Sequence[Request],
    decode_text: AnswerText,
    eos_ids: Iterable[int],
    cancel: Callable[[], bool] | None = None,
    max_length: int | None = None,
) -> Iterator[TokenEvent]:
    """Continue every request to its end; yields each token as it is sampled.

    A step samples one token for each live request, yields these events, then decodes the tokens of those that go on in
    one `engine.decode`. Finished requests are never decoded, so the cache of a sequence always holds its prompt and all
    tokens of its events but the newest (under a grammar: but the newest few, those since the last step):
    `[*prompt_ids, *sampled_ids][: engine.length(seq)]`. Sequences stay open; they belong to the caller.

    `max_length` is the context in tokens: answers end with "length" when prompt and answer fill it; a longer prompt
    raises ContextLengthError. `cancel` is asked once a step; when true, that step's tokens are the last ("cancelled").
    """
    eos = frozenset(eos_ids)
    answers = [LiveAnswer(index, request, decode_text, eos, max_length) for index, request in enumerate(requests)]
    live = answers
    while live:
        cancelled = cancel is not None and cancel()
        for answer in live:
            yield from answer.step(cancelled)
        live = [answer for answer in live if not answer.finished]
        advance(engine, live)


def collect(events: Iterable[TokenEvent], n: int = 1) -> list[Generated]:
    """The whole answers of `n` requests from their events."""
    streams: list[list[TokenEvent]] = [[] for _ in range(n)]
    for event in events:
        streams[event.request_index].append(event)
    return [_generated(stream) for stream in streams]


def _generated(events: Sequence[TokenEvent]) -> Generated:
    reason = events[-1].finish_reason if events else None
    assert reason is not None, "collect needs the events of a whole answer"
    seen = events[: events[-1].visible_tokens]
    return Generated(
        token_ids=tuple(e.token_id for e in seen),
        text="".join(e.text_delta for e in events),
        finish_reason=reason,
        logprobs=tuple(e.logprob for e in seen if e.logprob is not None),
        top_logprobs=tuple(e.top_logprobs for e in seen if e.logprob is not None),
        sampled_ids=tuple(e.token_id for e in events),
    )


def advance(engine: Engine, live: Sequence[LiveAnswer]) -> None:
    """Bring the sampled tokens into the caches: single ones in one batch, a grammar's forced runs by a prefill each."""
    single = [answer for answer in live if len(answer.undecoded) == 1]
    if single:
        rows = engine.decode([a.request.seq for a in single], [a.undecoded[0] for a in single])
        for answer, row in zip(single, rows, strict=True):
            answer.logits = row
    for answer in live:
        if len(answer.undecoded) > 1:
            answer.logits = engine.prefill(answer.request.seq, answer.undecoded)[-1]
        answer.undecoded = []


class _Guards:
    """Both loop guards of an answer as one."""

    def __init__(self, decode_text: AnswerText) -> None:
        self._tokens = LoopGuard(has_words=lambda ids: any(c.isalpha() for c in decode_text(ids)))
        self._sentences = SentenceGuard()

    def push(self, token_id: int, text: str) -> int:
        """How many of the newest tokens to hold back."""
        return max(self._tokens.push(token_id), self._sentences.push(text))

    @property
    def cut(self) -> tuple[int, int] | None:
        """Once a loop is confirmed: the tokens to keep, and how many more may complete a sentence."""
        if self._tokens.loop is not None:
            start, period = self._tokens.loop
            return start, period - 1
        return None if self._sentences.start is None else (self._sentences.start, 0)


class LiveAnswer:
    """The state of one request between steps: `step` samples, `advance` then brings what was sampled into the cache."""

    def __init__(self, index: int, request: Request, decode_text: AnswerText, eos_ids: frozenset[int], max_length: int | None) -> None:
        params, prompt_tokens = request.params, len(request.prompt_ids)
        if max_length is not None:
            check_context(prompt_tokens, max_length)
        self.index = index
        self.request = request
        self.logits = request.logits
        self.undecoded: list[int] = []  # sampled tokens that the cache does not hold yet
        self.finished = False
        self._budget = params.max_new_tokens
        if max_length is not None:
            self._budget = min(self._budget, max(1, max_length - prompt_tokens))
        self._eos_ids = frozenset() if params.ignore_eos else eos_ids
        self._grammar = request.grammar
        self._sampler = Sampler(params, request.prompt_ids, len(request.logits))
        self._generated: list[int] = []
        self._begun = False  # some text was given out
        self._guard: _Guards | None = None
        if self._grammar is not None:
            # A document must come out whole: under a grammar nothing else may end it.
            self._grammar.require(self._budget)
            self._eos_ids = eos_ids
        elif params.loop_guard:
            self._guard = _Guards(decode_text)
        shown = functools.partial(decode_text, special_tokens="keep") if params.special_tokens == "keep" else decode_text
        self._stream = TextStream(shown, params.stop if self._grammar is None else ())

    def step(self, cancelled: bool) -> Iterator[TokenEvent]:
        """Sample from `logits`: one token, and those that a grammar forces after it."""
        logits = np.asarray(self.logits, dtype=np.float32)
        if self._grammar is None:
            yield self._take(self._sampler.next(logits, self._generated), cancelled)
            return
        sampled = self._sampler.next(logits, self._generated, self._grammar.allowed())
        taken = self._grammar.accept(sampled.token_id, self._tokens_left)
        if taken != sampled.token_id:
            sampled = self._sampler.score(taken, logits)
        yield self._take(sampled, cancelled)
        # Forced tokens are free: no sampling, and the engine takes them all at once. Not where each token's
        # log-probability is wanted, for that needs the logits before it.
        if not self.finished and self.request.params.logprobs is None:
            forced = self._grammar.forced(self._tokens_left)
            for left, token_id in zip(range(len(forced) - 1, -1, -1), forced, strict=True):
                yield self._take(Sampled(token_id, None, ()), False, more=left > 0)

    @property
    def _tokens_left(self) -> int:
        return self._budget - len(self._generated)

    def _take(self, sampled: Sampled, cancelled: bool, more: bool = False) -> TokenEvent:
        """`more`: forced tokens follow. The grammar is past them already, and only the last one can end the answer."""
        token_id = sampled.token_id
        self._generated.append(token_id)
        self.undecoded.append(token_id)
        delta, reason = self._text_and_end(token_id)
        if more:
            reason = None
        if reason is None and self._tokens_left <= 0:
            reason = "length" if self._grammar is None or not self._grammar.is_complete else "stop"
        if reason is None and cancelled:
            reason = "cancelled"
        if reason == "stop" and self._grammar is not None:
            self._grammar.require_complete()
        if reason is not None:
            self.finished = True
            delta += self._stream.finish()
        if delta and not self._begun:
            # The chat template has one blank between "Assistant:" and an answer, and the model writes it: it is no text of
            # the answer. Tokens, log-probabilities and stop strings keep it.
            self._begun, delta = True, delta.removeprefix(" ")
        visible = self._stream.visible_tokens
        settled = visible if self.finished else min(visible, self._stream.settled_tokens)
        return TokenEvent(self.index, token_id, delta, sampled.logprob, sampled.top, reason, visible, settled)

    def _text_and_end(self, token_id: int) -> tuple[str, FinishReason | None]:
        if token_id in self._eos_ids:
            return "", "stop"
        self._stream.take(token_id)
        held = self._guard.push(token_id, self._stream.newest) if self._guard is not None else 0
        delta = self._stream.show(held)
        if self._stream.stopped or (self._grammar is not None and self._grammar.is_finished):
            return delta, "stop"
        if self._guard is not None and self._guard.cut is not None:
            return delta + self._stream.cut(*self._guard.cut), "repetition"
        return delta, None
