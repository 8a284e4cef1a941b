"""From messages to logits: media and text through the processor, tiles through the encoder, the prompt into a KV cache."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import Engine, FloatArray, ImageEmbeds
from smolvlm.generation import GrammarCompiler
from smolvlm.inference.cached_sequence import PromptCache
from smolvlm.media import MediaOptions, normalise
from smolvlm.processor import ModelInputs, Processor

logger = logging.getLogger(__name__)

# on_progress(stage, done, total): "weights" in tensors, "frames" read, "tiles" encoded.
Progress: TypeAlias = Callable[[str, int, int], None]

_PATCHES_PER_CALL = 2048  # tiles are handed to the engine a few at a time: progress moves and memory stays small


@dataclass
class Counters:
    """What the runtime has done since it was made; tests and the curious read it."""

    tiles_encoded: int = 0
    tokens_prefilled: int = 0


@dataclass
class Runtime:
    """An engine and the processor of the same checkpoint."""

    engine: Engine
    processor: Processor
    name: str
    counters: Counters = field(default_factory=Counters)
    grammars: GrammarCompiler = field(init=False, repr=False)
    _told: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        config = self.engine.config
        self.grammars = GrammarCompiler(self.processor.tokenizer.json, config.text.vocab_size, config.eos_token_ids)

    def encode(self, inputs: ModelInputs, on_progress: Progress | None = None) -> list[ImageEmbeds]:
        """All tiles of a prompt through the vision encoder, in order."""
        return self.encode_tiles(inputs.tiles, on_progress)

    def encode_tiles(self, tiles: npt.NDArray[np.uint8], on_progress: Progress | None = None) -> list[ImageEmbeds]:
        """Tiles, uint8 (tiles, side, side, 3), through the vision encoder, a few at a time."""
        total = len(tiles)
        embeds: list[ImageEmbeds] = []
        done = 0
        size = max(1, _PATCHES_PER_CALL // self.engine.config.vision.num_patches)
        for start in range(0, total, size):
            pixel_values = normalise(tiles[start : start + size], self.processor.config)
            embeds.append(self.engine.encode_images(pixel_values))
            done += len(pixel_values)
            if on_progress is not None:
                on_progress("tiles", done, total)
        self.counters.tiles_encoded += total
        return embeds

    def tell(self, inputs: ModelInputs, *, media: bool = True) -> None:
        """Log what a reader of the answer should know; what the model does not know only where that is news."""
        log_warnings(inputs.media_warnings if media else ())
        if inputs.world_warning not in (None, self._told):
            self._told = inputs.world_warning
            logger.warning("%s", self._told)

    def room(self, inputs: ModelInputs, max_new_tokens: int) -> int:
        """Tokens to reserve for a prompt and its answer. Raises ContextLengthError when not one new token fits."""
        context = self.engine.config.text.max_position_embeddings
        inputs.check_context(context - 1)
        return min(context, len(inputs.input_ids) + max_new_tokens)

    def prompt(
        self,
        messages: Sequence[Mapping[str, Any]],
        options: MediaOptions,
        max_new_tokens: int,
        on_progress: Progress | None = None,
        clock: Clock | None = None,
    ) -> Prompted:
        """Process, encode and prefill a conversation in a fresh sequence; the caller closes it."""
        clock = clock or Clock()
        inputs = self.processor(messages, options=options, on_frame=stage(on_progress, "frames"))
        self.tell(inputs)
        clock.lap("media")
        capacity = self.room(inputs, max_new_tokens)  # before the long part, not after
        embeds = self.encode(inputs, on_progress)
        inputs = inputs.without_pixels()
        clock.lap("encode")
        cache = PromptCache(self.engine, capacity)
        try:
            return self.prefill(cache, inputs, embeds, inputs.tile_count, clock)
        except BaseException:
            cache.close()
            raise

    def prefill(self, cache: PromptCache, inputs: ModelInputs, embeds: Sequence[ImageEmbeds], encoded: int, clock: Clock) -> Prompted:
        """Bring `cache` to hold the prompt; `encoded` says how many tiles were encoded for it just now."""
        logits, prefilled = cache.prefill(inputs.input_ids, embeds)
        self.counters.tokens_prefilled += prefilled
        clock.lap("prefill")
        return Prompted(cache, logits, inputs, prefilled, encoded, clock)


def log_warnings(sentences: Sequence[str]) -> None:
    """What readers of media want to be known, for whoever asks in this process; the command line shows it on stderr."""
    for sentence in sentences:
        logger.warning("%s", sentence)


def stage(on_progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """`on_progress` for one stage."""
    return None if on_progress is None else functools.partial(on_progress, name)


class Clock:
    """What the time since a call went to. Laps are seconds of one answer's own work; of answers that are made together each has
    a clock, and what is done for the others is in no lap of its own."""

    def __init__(self, began: float | None = None) -> None:
        """`began`: when the call came, by `time.perf_counter`; now if it is not given."""
        self.began = self._last = time.perf_counter() if began is None else began
        self.laps: dict[str, float] = {}
        self.first_token_s: float | None = None

    def lap(self, name: str) -> None:
        """What passed since the last lap went to `name`."""
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now

    def skip(self) -> None:
        """What passed since the last lap was for other answers."""
        self._last = time.perf_counter()

    def first_token(self) -> None:
        """The first token is here."""
        if self.first_token_s is None:
            self.first_token_s = self.elapsed

    @property
    def elapsed(self) -> float:
        """Seconds since the call."""
        return time.perf_counter() - self.began


@dataclass
class Prompted:
    """A prompt in its KV cache, ready to be continued."""

    cache: PromptCache
    logits: FloatArray  # (vocab,), of the last position
    inputs: ModelInputs
    prefilled: int
    encoded: int
    clock: Clock
