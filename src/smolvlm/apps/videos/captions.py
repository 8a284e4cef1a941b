"""What the model says of a window: its caption, how likely it is, and words that it might have said instead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from smolvlm.apps.library import is_common, query_words
from smolvlm.apps.videos.settings import IndexSettings
from smolvlm.apps.videos.windows import Window

if TYPE_CHECKING:
    from smolvlm.answers import Answer
    from smolvlm.encoded import Encoded
    from smolvlm.vlm import SmolVLM

_ALTERNATIVES = 4
_LEAST_LOG_P = math.log(0.05)  # of a word that the model might have said
_MOST_TAGS = 24


@dataclass(frozen=True, eq=False)
class Captioned:
    """`logprob` is the sum over the caption's tokens; `features` the window as the encoder saw it."""

    window: Window
    caption: str
    logprob: float
    tags: tuple[str, ...]
    features: Encoded


def encode_window(model: SmolVLM, window: Window, label: str) -> Encoded:
    """The window as a clip of its own: its times begin at 0, as those of clips that models learn from. `label`: the video in warnings."""
    frames = np.stack([frame.pixels for frame in window.frames])
    times = [frame.time_s - window.frames[0].time_s for frame in window.frames]
    lasts_s = max(window.end_s - window.frames[0].time_s, times[-1])
    encoded = model.encode(frames, store="int8", max_frames=len(frames)).retimed(times, lasts_s)
    return replace(encoded, info=replace(encoded.info, label=label))


def caption(model: SmolVLM, windows: Sequence[Window], settings: IndexSettings, label: str) -> list[Captioned]:
    """The captions of several windows, decoded together."""
    encoded = [encode_window(model, window, label) for window in windows]
    answers = model.ask_many(
        [(each, settings.prompt) for each in encoded], max_new_tokens=settings.max_caption_tokens, logprobs=_ALTERNATIVES, temperature=0
    )
    return [_captioned(*each) for each in zip(windows, answers, encoded, strict=True)]


def _captioned(window: Window, answer: Answer, encoded: Encoded) -> Captioned:
    text = " ".join(answer.text.split())
    logprob = sum(token.logprob for token in answer.logprobs or ())
    return Captioned(window, text, logprob, _tags(text, answer), encoded)


def _tags(text: str, answer: Answer) -> tuple[str, ...]:
    """The caption's words, then words of one token that were nearly said in their place."""
    words = dict.fromkeys(query_words(text))
    tokens = answer.logprobs or ()
    for i, token in enumerate(tokens):
        whole = i + 1 == len(tokens) or not tokens[i + 1].text[:1].isalnum()  # no word goes on behind it
        for _, other, log_p in token.top if whole else ():
            if log_p >= _LEAST_LOG_P and other[:1] == " " and other.strip().isalpha() and not is_common(other.strip()):
                words[other.strip().lower()] = None
    return tuple(words)[:_MOST_TAGS]
