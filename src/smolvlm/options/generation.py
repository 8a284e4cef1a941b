"""What a caller may ask of generation: one frozen dataclass, checked when it is made. Help, defaults, ranges and doors live only here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from smolvlm.errors import ParamsError
from smolvlm.options.declare import Range, check, option, shown

MAX_STOP_STRINGS = 64
MAX_STOP_CHARS = 1024
SpecialTokens = Literal["strip", "keep"]
SPECIAL_TOKENS: tuple[str, ...] = ("strip", "keep")
MAX_TOP_LOGPROBS = 20  # OpenAI's limit for `top_logprobs`


def _stop_strings(name: str, stop: object) -> tuple[str, ...]:
    if stop is None:
        return ()
    if isinstance(stop, str):
        stop = (stop,)
    if not isinstance(stop, Sequence) or isinstance(stop, bytes | bytearray):
        raise ParamsError(f"{name}={shown(stop)}: expected a string or a sequence of strings.")
    if len(stop) > MAX_STOP_STRINGS:
        raise ParamsError(f"{name} holds {len(stop)} strings: expected at most {MAX_STOP_STRINGS}.")
    for item in stop:
        if not isinstance(item, str) or not 0 < len(item) <= MAX_STOP_CHARS:
            raise ParamsError(f"{name} holds {shown(item)}: expected strings of 1..{MAX_STOP_CHARS} characters.")
    return tuple(dict.fromkeys(stop))


@dataclass(frozen=True, kw_only=True)
class GenerationParams:
    """How one answer is sampled and when it ends. Raises ParamsError that names the value and its legal range.

    Sampling follows the order of `transformers`: repetition penalty and n-gram ban over prompt and answer, presence and
    frequency penalty (OpenAI: over the answer only), temperature, top-k, top-p, min-p. `temperature=0` is greedy: the
    likeliest token, the lowest id among equals; the three filters then change nothing.
    """

    max_new_tokens: int = option(
        256, "The longest answer, in tokens.", least=1, doors=("cli", "http", "page"), ranges={"page": Range(1, 4096)}, metavar="N"
    )
    temperature: float = option(
        0.0,
        "0: the likeliest token each time.",
        least=0,
        most=100,
        doors=("cli", "http", "page"),
        ranges={"http": Range(0, 2), "page": Range(0, 2)},  # OpenAI's; beyond it every model writes noise
        metavar="X",
    )
    top_k: int = option(0, "Sample among the N likeliest; 0: all.", least=0, hint="0 turns it off", doors=("cli", "http"), metavar="N")
    top_p: float = option(
        1.0,
        "Sample among likely tokens of this mass; 1: all.",
        above=0,
        most=1,
        hint="1 turns it off",
        doors=("cli", "http", "page"),
        ranges={"http": Range(0, 1), "page": Range(0.05, 1)},  # OpenAI's smallest nucleus, the likeliest token alone
        metavar="X",
    )
    min_p: float = option(
        0.0,
        "Drop tokens below this share of the likeliest one's; 0: none.",
        least=0,
        most=1,
        hint="0 turns it off",
        doors=("cli", "http"),
        metavar="X",
    )
    repetition_penalty: float = option(  # arXiv 1909.05858
        1.0, "Over 1 discourages what prompt or answer holds.", above=0, most=100, hint="1 turns it off", doors=("cli", "http"), metavar="X"
    )
    presence_penalty: float = option(0.0, "Over 0 discourages what the answer holds.", least=-2, most=2, doors=("cli", "http"), metavar="X")
    frequency_penalty: float = option(
        0.0, "Over 0 discourages what the answer holds, by how often.", least=-2, most=2, doors=("cli", "http"), metavar="X"
    )
    no_repeat_ngram_size: int = option(
        0, "Never write the same N tokens twice; 0: allowed.", least=0, hint="0 turns it off", doors=("cli", "http"), metavar="N"
    )
    # A single string is taken too.
    stop: tuple[str, ...] = option(
        (), "End the answer before this text; may be given again.", doors=("cli", "http"), metavar="TEXT", convert=_stop_strings
    )
    seed: int | None = option(
        None,
        "Makes sampling repeatable.",
        least=0,
        most=2**64 - 1,
        hint="None takes fresh entropy",
        doors=("cli", "http"),
        ranges={"http": Range(-(2**63), 2**63 - 1)},  # OpenAI's seeds are signed
        metavar="N",
    )
    # n: the token's own log-probability and the n likeliest; 20 is OpenAI's limit for `top_logprobs`.
    logprobs: int | None = option(
        None,
        "The log-probability of each token, and of the N likeliest in its place; on the command line with `ask --json`.",
        least=0,
        most=MAX_TOP_LOGPROBS,
        hint="None turns them off",
        doors=("cli", "http"),
        metavar="N",
    )
    loop_guard: bool = option(True, "End an answer that only repeats itself.", doors=("cli", "http"))
    ignore_eos: bool = option(False, "Write on past the end, to max_new_tokens: for benchmarks.", doors=("http",))

    special_tokens: SpecialTokens = option(
        "strip",
        "strip, or keep: show the answer's special tokens, as DocTags need.",
        choices=SPECIAL_TOKENS,
        doors=("cli", "http"),
        metavar="MODE",
    )

    def __post_init__(self) -> None:
        check(self)

    @property
    def greedy(self) -> bool:
        """Whether no randomness is used."""
        return self.temperature == 0.0
