"""From messages to logits: media and text through the processor, tiles through the encoder, the prompt into a KV cache."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from smolvlm.engines.base import Engine, FloatArray, ImageEmbeds
from smolvlm.media import MediaOptions
from smolvlm.processor import ModelInputs, Processor
from smolvlm.prompt_cache import PromptCache

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
    _told: str | None = field(default=None, repr=False)

    def encode(self, inputs: ModelInputs, on_progress: Progress | None = None) -> list[ImageEmbeds]:
        """All tiles of a prompt through the vision encoder, in order."""
        total = len(inputs.tiles)
        embeds: list[ImageEmbeds] = []
        done = 0
        for pixel_values in inputs.pixel_batches(max(1, _PATCHES_PER_CALL // self.engine.config.vision.num_patches)):
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

    def prompt(self, messages: Sequence[Mapping[str, Any]], options: MediaOptions, max_new_tokens: int,
               on_progress: Progress | None = None) -> Prompted:  # fmt: skip
        """Process, encode and prefill a conversation in a fresh sequence; the caller closes it."""
        clock = Clock()
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

    def prefill(self, cache: PromptCache, inputs: ModelInputs, embeds: Sequence[ImageEmbeds], encoded: int,
                clock: Clock) -> Prompted:  # fmt: skip
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
    """Seconds of each lap since it was made."""

    def __init__(self) -> None:
        self.started = self._last = time.perf_counter()
        self.laps: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = self.laps.get(name, 0.0) + now - self._last
        self._last = now

    @property
    def elapsed(self) -> float:
        return time.perf_counter() - self.started


@dataclass
class Prompted:
    """A prompt in its KV cache, ready to be continued."""

    cache: PromptCache
    logits: FloatArray  # (vocab,), of the last position
    inputs: ModelInputs
    prefilled: int
    encoded: int
    clock: Clock
