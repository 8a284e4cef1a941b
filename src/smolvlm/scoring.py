"""`choose`: how likely the model finds each of several answers, without generating any."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from smolvlm.answers import Choice
from smolvlm.engines.base import FloatArray
from smolvlm.errors import ParamsError, PromptError
from smolvlm.media import MediaOptions
from smolvlm.prompt_cache import PromptCache
from smolvlm.runtime import Progress, Runtime, stage


def choose_option(runtime: Runtime, messages: Sequence[Mapping[str, Any]], options: Sequence[str],
                  media_options: MediaOptions, on_progress: Progress | None = None) -> Choice:  # fmt: skip
    """Score each option as the assistant's complete answer: the sum of its tokens' log probabilities, the end included.

    Probabilities are the softmax of the sums. The media are encoded and the question is prefilled once; each option then
    costs one forward pass over its own tokens. Raises ParamsError for no options, an empty one or a repeated one.
    """
    _check(options)
    processor, engine = runtime.processor, runtime.engine
    prepared = processor.prepare_media(messages, options=media_options, on_frame=stage(on_progress, "frames"))
    prompt = processor.build(messages, prepared)
    runtime.tell(prompt)
    replies = [{"role": "assistant", "content": option} for option in options]
    whole = [processor.build([*messages, reply], prepared, add_generation_prompt=False) for reply in replies]
    room = max(runtime.room(inputs, 1) for inputs in whole)
    answers = [_up_to_end(runtime, inputs.input_ids) for inputs in whole]
    shared = min(_common_prefix(prompt.input_ids, ids) for ids in answers)
    cache = PromptCache(engine, room)
    try:
        logits, prefilled = cache.prefill(prompt.input_ids[:shared], runtime.encode(prompt, on_progress))
        runtime.counters.tokens_prefilled += prefilled
        sums = []
        for ids in answers:
            tail = list(ids[shared:])
            rows = [logits[None]]
            if len(tail) > 1:
                rows.append(engine.prefill(cache.seq, tail[:-1], logits_to_keep=0))
                cache.rewind(shared)
            sums.append(float(_log_softmax(np.concatenate(rows))[np.arange(len(tail)), tail].sum()))
    finally:
        cache.close()
    scores = np.array(sums)
    weights = np.exp(scores - scores.max())
    probabilities = weights / weights.sum()
    best = int(scores.argmax())
    return Choice(options[best], best, dict(zip(options, probabilities.tolist(), strict=True)),
                  dict(zip(options, sums, strict=True)), prompt.warnings)  # fmt: skip


def _check(options: Sequence[str]) -> None:
    if isinstance(options, str) or not all(isinstance(option, str) for option in options):
        raise ParamsError("options must be a list of strings, such as ['yes', 'no'].")
    if not options:
        raise ParamsError("options is empty; give at least one answer to choose from.")
    if blank := [i for i, option in enumerate(options) if not option.strip()]:
        raise ParamsError(f"option {blank[0]} is empty; an answer to choose needs some text.")
    if len(set(options)) != len(options):
        raise ParamsError("options holds the same answer twice; each may stand once.")


def _up_to_end(runtime: Runtime, ids: Sequence[int]) -> Sequence[int]:
    """Cut what the template writes after the answer's end token (a line break)."""
    ends = [i for i, token in enumerate(ids) if token in runtime.engine.config.eos_token_ids]
    if not ends:
        raise PromptError("the chat template writes no end token after an answer, so answers cannot be scored.")
    return ids[: ends[-1] + 1]


def _common_prefix(left: Sequence[int], right: Sequence[int]) -> int:
    return next((i for i, (a, b) in enumerate(zip(left, right, strict=False)) if a != b), min(len(left), len(right)))


def _log_softmax(logits: FloatArray) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(rows, vocab) in float64: a sum over a long option must not lose digits."""
    shifted = logits.astype(np.float64) - logits.max(-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(-1, keepdims=True)))
