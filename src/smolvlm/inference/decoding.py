"""From a prefilled prompt to an answer: one as a stream, or several that are decoded together."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from smolvlm.answers import Answer, Timings, TokenLogprob, Usage
from smolvlm.errors import EngineError
from smolvlm.generation import Generated, GenerationParams, Grammar, Request, TokenEvent, collect, generate
from smolvlm.inference.runtime import Prefilled, Runtime
from smolvlm.processor import MediaInfo


class AnswerStream(Iterator[str]):
    """Pieces of an answer as they become certain. `.answer` runs to the end and gives the whole.

    The pieces joined are exactly `answer.text`. Any thread may call it: `cancel()` ends the answer at the next token with
    finish_reason "cancelled", `close()` drops an answer nobody waits for, and each piece goes to one reader only.
    """

    def __init__(
        self,
        runtime: Runtime,
        prefilled: Prefilled,
        params: GenerationParams,
        *,
        grammar: Grammar | None = None,
        on_done: Callable[[Answer, Sequence[int]], None] | None = None,
    ) -> None:
        """`on_done(answer, sampled_ids)` is called once at the end; without it the sequence is closed there."""
        self._runtime, self._prefilled, self._params, self._on_done = runtime, prefilled, params, on_done
        self._cancelled = threading.Event()  # shared with the generator, which must not hold this object alive
        self._reading = threading.Lock()  # closed while another thread waits for a piece, a generator would object
        self._events: list[TokenEvent] = []
        self._answer: Answer | None = None
        self.finished = False  # also true after an exception ended it
        self._source = _generate(runtime, [prefilled], params, [grammar], self._cancelled.is_set)

    def __next__(self) -> str:
        with self._reading:
            return self._next()

    def _next(self) -> str:
        try:
            for event in self._source:
                self._prefilled.clock.first_token()
                self._events.append(event)
                if event.finish_reason is not None:
                    self._finish()
                if event.text_delta:
                    return event.text_delta
        except BaseException:
            self.finished = True
            raise
        raise StopIteration

    @property
    def media(self) -> tuple[MediaInfo, ...]:
        """What became of each picture and video: tiles, frame times, length."""
        return self._prefilled.prompt.infos

    @property
    def answer(self) -> Answer:
        """The whole answer; waits for it if it is still being written."""
        for _ in self:
            pass
        if self._answer is None:
            raise EngineError("the answer was interrupted and is lost; ask again.")
        return self._answer

    def cancel(self) -> None:
        """End the answer at the next token."""
        self._cancelled.set()

    @property
    def cancelled(self) -> bool:
        """Whether the end was asked for; it comes with the next token."""
        return self._cancelled.is_set()

    def close(self) -> None:
        """Stop and free the sequence; what was not read is lost."""
        self.cancel()
        for _ in self:
            pass

    def _finish(self) -> None:
        generated = collect(self._events, 1)[0]
        self._answer = _answer(self._runtime, self._prefilled, generated, self._prefilled.clock.elapsed)
        self.finished = True
        if self._on_done is not None:
            self._on_done(self._answer, generated.sampled_ids)
        else:
            self._prefilled.sequence.close()

    def __del__(self) -> None:
        if self._answer is None and self._on_done is None:
            self._prefilled.sequence.close()


def answer_together(runtime: Runtime, prefilled: Sequence[Prefilled], params: GenerationParams) -> list[Answer]:
    """Decode several prompts in one batch, answers in the order given. The caller closes the sequences."""
    events: list[TokenEvent] = []
    totals = [0.0] * len(prefilled)
    for event in _generate(runtime, prefilled, params, [None] * len(prefilled)):
        events.append(event)
        clock = prefilled[event.request_index].clock
        clock.first_token()
        totals[event.request_index] = clock.elapsed
    return [_answer(runtime, p, g, s) for p, g, s in zip(prefilled, collect(events, len(prefilled)), totals, strict=True)]


def _generate(
    runtime: Runtime,
    prefilled: Sequence[Prefilled],
    params: GenerationParams,
    grammars: Sequence[Grammar | None],
    cancel: Callable[[], bool] | None = None,
) -> Iterator[TokenEvent]:
    config = runtime.engine.config
    requests = [
        Request(item.sequence.seq, item.logits, item.prompt.input_ids, params, grammar)
        for item, grammar in zip(prefilled, grammars, strict=True)
    ]
    decode = runtime.processor.tokenizer.answer_text
    return generate(runtime.engine, requests, decode, config.eos_token_ids, cancel=cancel, max_length=config.text.max_position_embeddings)


def _answer(runtime: Runtime, prefilled: Prefilled, generated: Generated, total_s: float) -> Answer:
    config, prompt, laps = runtime.engine.config, prefilled.prompt, prefilled.clock.laps
    return Answer(
        text=generated.text,
        finish_reason=generated.finish_reason,
        token_ids=tuple(generated.token_ids),
        usage=Usage(
            prompt_tokens=len(prompt.input_ids),
            image_tokens=len(prompt.tiles) * config.image_seq_len,
            prefilled_tokens=prefilled.prefilled,
            encoded_tiles=prefilled.encoded,
            completion_tokens=len(generated.token_ids),
        ),
        timings=Timings(
            media_s=laps.get("media", 0.0),
            encode_s=laps.get("encode", 0.0),
            prefill_s=laps.get("prefill", 0.0),
            first_token_s=prefilled.clock.first_token_s or total_s,
            total_s=total_s,
        ),
        model=runtime.name,
        logprobs=_logprobs(runtime, generated),
        warnings=prompt.warnings,
    )


def _logprobs(runtime: Runtime, generated: Generated) -> tuple[TokenLogprob, ...] | None:
    if not generated.logprobs:
        return None

    def text_of(token: int) -> str:
        return runtime.processor.tokenizer.decode([token], skip_special_tokens=False)

    return tuple(
        TokenLogprob(token, text_of(token), logprob, tuple((t, text_of(t), value) for t, value in top))
        for token, logprob, top in zip(generated.token_ids, generated.logprobs, generated.top_logprobs, strict=True)
    )
