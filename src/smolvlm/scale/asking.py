"""Items -> rows of the output: each medium is read and encoded once, its questions and its neighbours' decoded together."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from smolvlm.answers import Answer
from smolvlm.errors import EngineError, MediaUnavailableError, SmolVLMError, SourceError
from smolvlm.inference.cached_sequence import CachedSequence
from smolvlm.inference.decoding import AnswerStream, answer_together
from smolvlm.inference.runtime import Prefilled
from smolvlm.inference.timing import Clock
from smolvlm.media import media_kind
from smolvlm.media.labels import one_line
from smolvlm.prompt.messages import parse_messages
from smolvlm.scale.attempts import MAX_DEATHS, Attempts
from smolvlm.scale.errors import BatchError
from smolvlm.scale.folder import COLUMNS
from smolvlm.scale.items import Item
from smolvlm.scale.opening import Opener
from smolvlm.scale.settings import BatchSettings
from smolvlm.vlm import SmolVLM, split_options

logger = logging.getLogger(__name__)

Row: TypeAlias = dict[str, Any]
_MAX_STRANGE = 10  # a GPU that is lost must not turn a million inputs into error rows


@dataclass
class _Asked:
    """One row, not finished yet: its prompt is in a KV cache, or `error` says why not. `seconds` counts its own work."""

    item: Item
    question: str
    seconds: float = 0.0
    prefilled: Prefilled | None = None
    answer: Answer | None = None
    error: str | None = None


class Asker:
    """Asks a model the questions of a run."""

    def __init__(self, model: SmolVLM, settings: BatchSettings) -> None:
        self._model, self._settings = model, settings
        self._media_options, self._params = split_options(settings.options)
        self._strange = 0  # inputs in a row that failed for reasons that are not their own
        self._opener = Opener(settings.remote_policy(), model.processor.policy.limits, settings.allow_paths)

    def rows(self, items: Sequence[Item], attempts: Attempts) -> list[Row]:
        """One row for each item and question, in that order. What is wrong with an item is in its rows.

        Raises BatchError where the machine is at fault: a full disk, a device that fails for one input after the other.
        """
        size = max(1, self._settings.batch_size // len(self._settings.questions))
        rows: list[Row] = []
        for start in range(0, len(items), size):
            group: list[_Asked] = []
            try:
                for item in items[start : start + size]:
                    group += self._prompted(item, attempts)
                self._answer(group)
            finally:
                for asked in group:
                    if asked.prefilled is not None:
                        asked.prefilled.sequence.close()
            rows += [self._row(asked) for asked in group]
        return rows

    def close(self) -> None:
        self._opener.close()

    def _prompted(self, item: Item, attempts: Attempts) -> list[_Asked]:
        """The item's questions, prefilled, or all with the same error."""
        may_try = attempts.may_try(item.id)
        started = time.perf_counter()
        done: list[_Asked] = []
        try:
            if not may_try:
                raise SourceError(f"{item.source}: reading it ended the process {MAX_DEATHS} times; it was left out.")
            for asked in self._prefilled(item):
                done.append(asked)
            self._strange = 0
            return done
        except MediaUnavailableError as error:  # this machine's trouble: every other input would share it
            raise BatchError(str(error)) from None
        except SmolVLMError as error:
            problem = " ".join(str(error).split())
            self._strange += isinstance(error, EngineError)
        except Exception as error:  # one strange file must not end the run; it is named as the defect that it shows
            what = f"unexpected {type(error).__name__} ({one_line(error)})"
            logger.warning("%s: %s", item.source, what)
            logger.debug("%s", item.source, exc_info=True)
            problem = f"{what}: a defect of smolvlm, please report it."
            self._strange += 1
        if self._strange >= _MAX_STRANGE:
            raise BatchError(
                f"{self._strange} inputs in a row failed although they could be read ({problem.rstrip('.')}); see "
                "whether this machine is well, and run the same command again."
            )
        for asked in done:
            if asked.prefilled is not None:
                asked.prefilled.sequence.close()
        seconds = (time.perf_counter() - started) / len(self._settings.questions)
        return [_Asked(item, question, seconds, error=problem) for question in self._settings.questions]

    def _prefilled(self, item: Item) -> Iterator[_Asked]:
        runtime, policy = self._model.runtime, self._model.processor.policy
        questions = self._settings.questions
        clock = Clock()
        with self._opener.opened(item) as source:
            kind = media_kind(source, policy.limits, self._media_options.media_kind)
            part = {"type": kind, kind: source}
            messages = [parse_messages(self._model.messages([part], each, self._settings.system)) for each in questions]
            media = runtime.read_media(messages[0], self._media_options)
        prompts = [runtime.word(conversation, media) for conversation in messages]
        rooms = [runtime.check_room(each, self._params.max_new_tokens) for each in prompts]  # before the long part, not after
        runtime.encode(media)
        shared = clock.elapsed / len(questions)
        first: CachedSequence | None = None
        for question, prompt in zip(questions, prompts, strict=True):
            own = Clock()  # questions share what comes before their words
            sequence = runtime.open_sequence(max(rooms)) if first is None else first.fork(len(first.ids))
            first = first or sequence
            try:
                prefilled = runtime.prefill(prompt, sequence, own)
            except BaseException:
                sequence.close()
                raise
            yield _Asked(item, question, shared + own.elapsed, prefilled)

    def _answer(self, group: Sequence[_Asked]) -> None:
        """Decode what was prefilled; the time is shared out evenly."""
        ready = [(asked, asked.prefilled) for asked in group if asked.prefilled is not None]
        if not ready:
            return
        started = time.perf_counter()
        if self._settings.schema is None:
            answers = answer_together(self._model.runtime, [prefilled for _, prefilled in ready], self._params)
            for (asked, _), answer in zip(ready, answers, strict=True):
                asked.answer = answer
        else:
            for asked, prefilled in ready:
                self._fill(asked, prefilled, self._settings.schema)
        seconds = (time.perf_counter() - started) / len(ready)
        for asked, _ in ready:
            asked.seconds += seconds

    def _fill(self, asked: _Asked, prefilled: Prefilled, schema: str) -> None:
        try:
            grammar = self._model.runtime.grammars.json_schema(schema)  # it is the state of one answer, and ends up used
            asked.answer = AnswerStream(self._model.runtime, prefilled, self._params, grammar=grammar).answer
        except SmolVLMError as error:
            asked.error = " ".join(str(error).split())

    def _row(self, asked: _Asked) -> Row:
        answer = asked.answer
        values = {
            "id": asked.item.id,
            "source": asked.item.source,
            "question": asked.question,
            "answer": None if answer is None else answer.text,
            "finish_reason": None if answer is None else answer.finish_reason,
            "prompt_tokens": None if answer is None else answer.usage.prompt_tokens,
            "completion_tokens": None if answer is None else answer.usage.completion_tokens,
            "seconds": asked.seconds,
            "error": asked.error,
            "model": self._settings.model.name,
            "warnings": " ".join(answer.warnings) or None if answer is not None else None,
        }
        assert list(values) == list(COLUMNS)
        return values
