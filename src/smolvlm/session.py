"""A conversation that encodes its media once and keeps its KV cache: a further question costs only its own tokens."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from smolvlm.answers import Answer, Choice
from smolvlm.errors import ContextLengthError, ParamsError, PromptError
from smolvlm.extraction import Extracted, fields_of
from smolvlm.generation import GenerationParams, Grammar, parse_as
from smolvlm.inference.cached_sequence import CachedSequence
from smolvlm.inference.decoding import AnswerStream
from smolvlm.inference.prompt import Medium
from smolvlm.inference.runtime import Progress, Runtime
from smolvlm.inference.scoring import Candidates, check_options
from smolvlm.inference.timing import Clock
from smolvlm.json_file import short
from smolvlm.media import MediaOptions
from smolvlm.media_parts import media_parts
from smolvlm.prompt.messages import ImagePart, Message, ParsedMessages, Part, TextPart, TokenPart, VideoPart, parse_messages

EXTRACT_PROMPT = "Answer with one JSON object that holds what can be seen."


class Session:
    """Made by `SmolVLM.session`. Use it as a context manager, or `close` it, to free its KV cache."""

    def __init__(
        self, runtime: Runtime, parts: Sequence[Mapping[str, Any]], system: str | None, options: MediaOptions, params: GenerationParams
    ) -> None:
        self._runtime = runtime
        self.configure(system, options, params)
        self._parts = _parsed(parts)  # media, and texts between them
        self._placed = 0  # of the parts, those that earlier questions brought; the next brings the rest
        self._changes = 0  # an answer under way is not remembered once the conversation was changed
        self._turns: list[Message] = []
        self._media: list[Medium] = []  # in their order, as far as they were read; their pixels go when they are encoded
        self._sequence: CachedSequence | None = None
        self._forget: weakref.finalize[Any, Any] | None = None
        self._lock = os.getpid(), threading.RLock()
        self._stream: weakref.ref[AnswerStream] | None = None  # one that nobody holds any more is over

    def configure(self, system: str | None, options: MediaOptions, params: GenerationParams) -> None:
        """What holds from the next question on."""
        self.system, self._options, self._params = system, options, params

    def ask(self, prompt: str, *, remember: bool = True, on_progress: Progress | None = None) -> Answer:
        """The answer to the next question. `remember=False` asks it aside: later questions will not see it."""
        with self._alone():
            return self.stream(prompt, remember=remember, on_progress=on_progress).answer

    def stream(self, prompt: str, *, remember: bool = True, on_progress: Progress | None = None) -> AnswerStream:
        """Like `ask`, as an iterator over pieces of text. The next question waits for its end."""
        with self._alone():
            return self._begin(prompt, remember, on_progress)

    def _alone(self) -> threading.RLock:
        """Questions of several threads are asked one after the other. A forked child knows nothing of its parent's threads."""
        if self._lock[0] != os.getpid():
            self._lock = os.getpid(), threading.RLock()
        return self._lock[1]

    def choose(self, question: str, options: Sequence[str], *, remember: bool = False, on_progress: Progress | None = None) -> Choice:
        """The likeliest of `options` as the answer to the next question; nothing is generated. `remember=True` keeps the
        question and the chosen answer for later ones. Raises ParamsError for no options, an empty or a repeated one."""
        check_options(options)
        with self._alone():
            brought, turns, messages = self._turn_of(question)
            self._read(on_progress)
            candidates = Candidates(self._runtime, messages, options, self._media)
            choice = candidates.score(self._open_sequence(), on_progress)
            if remember:
                self._turns = [*turns, Message("assistant", (TextPart(choice.option),))]
                self._placed = brought
            return choice

    def extract(
        self,
        schema: Any,
        prompt: str = EXTRACT_PROMPT,
        *,
        remember: bool = False,
        details: bool = False,
        on_progress: Progress | None = None,
    ) -> Any:
        """`SmolVLM.extract` as the next question. Later questions do not see it unless `remember` is True."""
        grammar = self._runtime.grammars.json_schema(schema)
        with self._alone():
            answer = self._begin(prompt, remember, on_progress, grammar, logprobs=details).answer
        value = parse_as(schema, answer.text)
        return Extracted(value, fields_of(answer, self._runtime.processor.tokenizer.decode), answer) if details else value

    def _turn_of(self, prompt: str) -> tuple[int, list[Message], ParsedMessages]:
        """How many media the next question will have brought, the turns up to it, and the whole conversation."""
        running = self._running()
        if running is not None and running.cancelled:
            running.close()
        elif running is not None:
            raise PromptError("the session is still answering; read the stream to its end, or cancel it, first.")
        content = [*self._parts[self._placed :], {"type": "text", "text": prompt}]
        turns = [*self._turns, *parse_messages([{"role": "user", "content": content}])]
        opening = [] if self.system is None else parse_messages([{"role": "system", "content": self.system}])
        return len(self._parts), turns, ParsedMessages([*opening, *turns])

    def _running(self) -> AnswerStream | None:
        """The answer that is still being written."""
        stream = self._stream() if self._stream is not None else None
        return None if stream is None or stream.finished else stream

    def _open_sequence(self) -> CachedSequence:
        if self._sequence is None:  # room for the whole context, so that a long conversation never moves
            self._sequence = self._runtime.open_sequence(self._runtime.engine.config.text.max_position_embeddings)
            self._forget = weakref.finalize(self, self._runtime.orphans.append, self._sequence)
            self._forget.atexit = False
        return self._sequence

    def _begin(
        self, prompt: str, remember: bool, on_progress: Progress | None, grammar: Grammar | None = None, logprobs: bool = False
    ) -> AnswerStream:
        clock = Clock()
        brought, turns, messages = self._turn_of(prompt)
        self._read(on_progress)
        worded = self._runtime.word(messages, self._media)
        self._runtime.tell(worded)
        try:
            self._runtime.check_room(worded, self._params.max_new_tokens)  # refused before the long part, not after
        except ContextLengthError as error:
            if not self._turns:
                raise
            raise ContextLengthError(f"{str(error).removesuffix('.')}; reset() forgets earlier questions.") from None
        clock.lap("media")
        sequence, changes = self._open_sequence(), self._changes
        prefilled = self._runtime.prefill(worded, sequence, clock, on_progress)

        def done(answer: Answer, sampled_ids: Sequence[int]) -> None:
            # Cut tokens are in the sequence too, and its newest is not: the next prompt finds what it can keep.
            sequence.holds([*worded.input_ids, *sampled_ids])
            if remember and self._changes == changes:
                self._turns = [*turns, Message("assistant", (self._answer_part(answer),))]
                self._placed = brought

        params = replace(self._params, logprobs=0) if logprobs and self._params.logprobs is None else self._params
        stream = AnswerStream(self._runtime, prefilled, params, grammar=grammar, on_done=done)
        self._stream = weakref.ref(stream)
        return stream

    def add(self, media: Any, *, on_progress: Progress | None = None) -> list[Medium]:
        """Media that the next question brings along; they are read now. Raises what `ask` raises for media, and is then
        as before."""
        parts = _parsed(media_parts(media, self._runtime.processor.policy))
        with self._alone():
            self._read(on_progress)
            fresh = self._opened(parts, on_progress)
            self._parts, self._media = [*self._parts, *parts], [*self._media, *fresh]
        return fresh

    def take_back(self, count: int) -> None:
        """Leave out the last `count` media, and texts behind them; those that a remembered question brought stay, and so does
        an answer that is being written, which is then not remembered. Raises ParamsError unless `count` is a whole number."""
        if isinstance(count, bool) or not isinstance(count, int) or count < 0:
            raise ParamsError(f"count={short(count)}: expected a whole number of media, 0 or more.")
        with self._alone():
            while count and len(self._parts) > self._placed:
                count -= isinstance(self._parts.pop(), ImagePart | VideoPart)
                self._changes += 1
            del self._media[len(_media_of(self._parts)) :]

    def reset(self) -> None:
        """Forget the questions and answers, one that is being written too; the media stay encoded, and the next question
        brings them all."""
        with self._alone():
            self._changes += 1
            self._turns = []
            self._placed = 0

    def close(self) -> None:
        """Free the KV cache; an answer that is being written ends. A later question would prefill everything again, but
        encode nothing."""
        with self._alone():
            running = self._running()
            if running is not None:
                running.close()
            if self._sequence is not None and self._forget is not None:
                self._forget.detach()
                self._sequence.close()
                self._sequence = None

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _read(self, on_progress: Progress | None) -> None:
        """Read the media that were not read yet."""
        self._media = [*self._media, *self._opened(_media_of(self._parts)[len(self._media) :], on_progress)]

    def _opened(self, parts: Sequence[Part], on_progress: Progress | None) -> list[Medium]:
        messages = ParsedMessages([Message("user", tuple(parts))])
        return self._runtime.read_media(messages, self._options, on_progress, options_for_later=True)

    def _answer_part(self, answer: Answer) -> Part:
        """The exact tokens of the answer: text that is tokenized again may split differently and miss the cache."""
        if not answer.token_ids or self._runtime.engine.config.image_token_id in answer.token_ids:
            return TextPart(answer.text)
        return TokenPart(answer.token_ids)


def _parsed(parts: Sequence[Mapping[str, Any]]) -> list[Part]:
    return list(parse_messages([{"role": "user", "content": list(parts)}])[0].parts) if parts else []


def _media_of(parts: Sequence[Part]) -> list[Part]:
    return [part for part in parts if isinstance(part, ImagePart | VideoPart)]
