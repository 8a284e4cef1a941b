"""Asks a model every question of a suite, greedily and in batches, and keeps the answers as they come."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from smolvlm.errors import ContextLengthError, EvalError
from smolvlm.evals.defaults import BATCH_SIZE, ITEMS, MAX_NEW_TOKENS
from smolvlm.evals.metrics import caption_right, exact
from smolvlm.evals.report import Report, make_report
from smolvlm.evals.results import Result, ResultLog
from smolvlm.evals.suite import Case, Suite
from smolvlm.vlm import SmolVLM

logger = logging.getLogger(__name__)

T = TypeVar("T")


def evaluate(
    model: SmolVLM,
    suite: Suite,
    *,
    tasks: Sequence[str] = (),
    items: int = ITEMS,
    out: Path | None = None,
    fingerprint: str | None = None,
    batch_size: int = BATCH_SIZE,
    max_new_tokens: int = MAX_NEW_TOKENS,
    options: Mapping[str, Any] | None = None,
    on_progress: Callable[[str, int, int], None] | None = None,
) -> Report:
    """Answer up to `items` cases of each of `tasks` (all of the suite by default) and count what is right.

    out: a folder for `items.jsonl`; the same call after a kill asks only what is still unanswered. fingerprint: of the
    weights, written into the report and checked on resuming. options: of `MediaOptions`, such as detail. on_progress gets
    ("answers", done, total). Raises EvalError for an unknown task, counts below 1, or a folder with another run's results.
    """
    if min(items, batch_size, max_new_tokens) < 1:
        raise EvalError(f"items={items}, batch_size={batch_size}, max_new_tokens={max_new_tokens}: each must be 1 or more.")
    wanted = [suite.task(name).name for name in dict.fromkeys(tasks or suite.tasks)]
    media_options = dict(options or {})
    identity = {
        "suite": suite.name,
        "suite_version": suite.version,
        **suite.settings,
        "model": model.name,
        "fingerprint": fingerprint,
        "dtype": model.engine.dtype,
        "prompt_style": model.processor.prompt_style,
        "max_new_tokens": max_new_tokens,
        "options": media_options,
    }
    log = ResultLog(out, identity)
    total = sum(suite.count(name, items) for name in wanted)
    done = sum((name, number) in log.results for name in wanted for number in range(suite.count(name, items)))
    if done:
        logger.info("%d of %d items were answered before", done, total)
    started = time.monotonic()
    for name in wanted:
        missing = [n for n in range(suite.count(name, items)) if (name, n) not in log.results]
        if not missing:
            continue
        cases = (case for case in suite.cases(name, items, missing[0]) if (name, case.number) not in log.results)
        for batch in _batches(cases, batch_size):
            answers = _answers(model, batch, max_new_tokens, media_options)
            log.add(_judged(suite, case, answer) for case, answer in zip(batch, answers, strict=True))
            done += len(batch)
            if on_progress is not None:
                on_progress("answers", done, total)
    results = {name: [log.results[name, number] for number in range(suite.count(name, items))] for name in wanted}
    return make_report(suite, identity, results, time.monotonic() - started)


def _answers(model: SmolVLM, batch: Sequence[Case], max_new_tokens: int, options: Mapping[str, Any]) -> list[str]:
    try:
        answers = model.chat_many([case.conversation() for case in batch], max_new_tokens=max_new_tokens, **options)
    except ContextLengthError as error:
        raise EvalError(f"a question of {batch[0].task} does not fit into the model: {error}") from None
    return [answer.text for answer in answers]


def _judged(suite: Suite, case: Case, answer: str) -> Result:
    strict = exact(case.expected, answer)
    right = caption_right(case.expected, answer) if suite.tasks[case.task].is_caption else strict
    return Result(case.task, case.number, case.question, case.expected, answer, right, strict)


def _batches(things: Iterator[T], size: int) -> Iterator[list[T]]:
    while batch := list(itertools.islice(things, size)):
        yield batch
