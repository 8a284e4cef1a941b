"""What the verbs of `SmolVLM` give back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Usage:
    """Tokens of one answer. `prefilled_tokens` < `prompt_tokens` when a session's KV cache already held the rest."""

    prompt_tokens: int
    image_tokens: int
    prefilled_tokens: int
    encoded_tiles: int
    completion_tokens: int


@dataclass(frozen=True)
class Timings:
    """Seconds: for reading media (downloads and decoding), encoding tiles and prefilling; from the call to the first token, and
    to the end of the answer. The last two hold everything, also what other answers of the same call took meanwhile."""

    media_s: float
    encode_s: float
    prefill_s: float
    first_token_s: float
    total_s: float


@dataclass(frozen=True)
class TokenLogprob:
    """One generated token with its log probability under the model, and the likeliest tokens in its place."""

    token_id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True)
class Answer:
    """An answer in text. `str(answer)` is the text.

    finish_reason: "stop" (the model ended it, or a stop string), "length" (max_new_tokens or the context), "repetition"
    (the loop guard ended it before text that only repeats), "cancelled".
    warnings: sentences that a reader of the answer should know, such as that colors were not tone-mapped, or that the model
    knows drawn scenes only.
    """

    text: str
    finish_reason: str
    token_ids: tuple[int, ...]
    usage: Usage
    timings: Timings
    model: str
    logprobs: tuple[TokenLogprob, ...] | None = None
    warnings: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, as `smolvlm ask --json` prints it."""
        out: dict[str, Any] = {
            "text": self.text,
            "finish_reason": self.finish_reason,
            "model": self.model,
            "usage": vars(self.usage),
            "timings": {name: round(seconds, 4) for name, seconds in vars(self.timings).items()},
        }
        if self.warnings:
            out["warnings"] = list(self.warnings)
        if self.logprobs is not None:
            out["logprobs"] = [vars(item) | {"top": [list(top) for top in item.top]} for item in self.logprobs]
        return out


@dataclass(frozen=True)
class Choice:
    """The likeliest of several options, with the probability of each: they sum to 1.

    `logprobs` are the summed log probabilities of each option's tokens as a complete answer, its end token included:
    without the end, an option that begins another ("cat", "cat food") could never lose to it.
    """

    option: str
    index: int
    probabilities: Mapping[str, float]
    logprobs: Mapping[str, float] = field(repr=False)
    warnings: tuple[str, ...] = ()

    @property
    def probability(self) -> float:
        """Of the chosen option."""
        return self.probabilities[self.option]

    def __str__(self) -> str:
        return self.option
