"""From a conversation to logits, step by step: read the media, word the prompt, check that it fits, encode, prefill."""

from __future__ import annotations

import functools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.encoded import Encoded
from smolvlm.engines.base import Engine, FloatArray
from smolvlm.errors import ParamsError
from smolvlm.generation import GrammarCompiler
from smolvlm.inference.cached_sequence import CachedSequence
from smolvlm.inference.prefill_task import PrefillTask
from smolvlm.inference.prompt import Medium, Prompt
from smolvlm.inference.tile_encoder import TileEncoder
from smolvlm.inference.tiles import stored_tiles, tiles_of
from smolvlm.inference.timing import Clock
from smolvlm.inference.vision_cache import VisionCache
from smolvlm.media import MediaOptions, normalize
from smolvlm.processor import PreparedMedia, Processor
from smolvlm.prompt.context import check_context
from smolvlm.prompt.messages import ImagePart, Message, ParsedMessages, VideoPart, parse_messages

logger = logging.getLogger(__name__)

# on_progress(stage, done, total): "weights" in tensors, "frames" read, "tiles" encoded.
Progress: TypeAlias = Callable[[str, int, int], None]


@dataclass
class Counters:
    """What the runtime has done since it was made; tests and the curious read it."""

    tiles_encoded: int = 0
    tokens_prefilled: int = 0


@dataclass
class Prefilled:
    """A prompt in its KV cache, ready to be continued. `encoded` tiles and `prefilled` tokens are what that cost."""

    sequence: CachedSequence
    logits: FloatArray  # (vocab,), of the last position
    prompt: Prompt
    prefilled: int
    encoded: int
    clock: Clock


@dataclass
class Runtime:
    """An engine and the processor of the same checkpoint."""

    engine: Engine
    processor: Processor
    name: str
    weights: Callable[[], str] = lambda: ""  # their fingerprint
    counters: Counters = field(default_factory=Counters)
    grammars: GrammarCompiler = field(init=False, repr=False)
    # Sequences whose owner was dropped: a destructor may run inside a call of the engine, and must not make another.
    orphans: deque[CachedSequence] = field(default_factory=deque, repr=False)
    _told: str | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        config = self.engine.config
        self.grammars = GrammarCompiler(self.processor.tokenizer.json, config.text.vocab_size, config.eos_token_ids)

    def read_media(
        self, messages: ParsedMessages, options: MediaOptions, on_progress: Progress | None = None, *, options_for_later: bool = False
    ) -> list[Medium]:
        """Every picture and video of a conversation, in order: opened, sampled, tiled; what their readers warn of is logged.

        Options beside nothing but encoded media are refused, unless they are also for media that come later.
        """
        parts = [part for message in messages for part in message.parts if isinstance(part, ImagePart | VideoPart)]
        stored = [self._stored(part) if isinstance(part.source, Encoded) else None for part in parts]
        if parts and None not in stored and options != MediaOptions() and not options_for_later:
            raise ParamsError(
                f"{parts[0].source.label} is encoded already: options of media, such as detail or fps, must be passed to encode."
            )
        fresh = ParsedMessages([Message("user", tuple(part for part, medium in zip(parts, stored, strict=True) if medium is None))])
        read = iter(self.media(self.processor.prepare_media(fresh, options=options, on_frame=stage(on_progress, "frames"))))
        media = [next(read) if medium is None else medium for medium in stored]
        for medium in media:
            for sentence in medium.info.sentences:
                logger.warning("%s", sentence)
        return media

    def _stored(self, part: ImagePart | VideoPart) -> Medium:
        """A medium that was encoded before. Raises ParamsError for that of another model, or options that come too late."""
        encoded: Encoded = part.source
        if encoded.fingerprint != self.fingerprint:
            raise ParamsError(
                f"{encoded.label} was encoded by {encoded.model} (weights {encoded.fingerprint[:8]}), and {self.name} has other weights "
                f"({self.fingerprint[:8]}); encode it again with this model."
            )
        if part.options:
            raise ParamsError(f"{encoded.label} is encoded already: {', '.join(part.options)} must be passed to encode.")
        return Medium(encoded.info, stored_tiles(encoded.keys, self.engine.stored_embeds(encoded.features), encoded.store))

    @functools.cached_property
    def fingerprint(self) -> str:
        """Which weights these are, as stored features name them."""
        return self.weights()

    def media(self, prepared: Sequence[PreparedMedia]) -> list[Medium]:
        """Media that were read elsewhere."""
        return [Medium(each.info, tiles_of(each.tiles)) for each in prepared]

    def word(self, messages: ParsedMessages, media: Sequence[Medium], *, add_generation_prompt: bool = True) -> Prompt:
        """The prompt of a conversation whose media were read. Raises PromptError when the two disagree."""
        worded = self.processor.word(messages, [each.info for each in media], add_generation_prompt=add_generation_prompt)
        return Prompt(worded, tuple(media))

    def check_room(self, prompt: Prompt, max_new_tokens: int) -> int:
        """Tokens to reserve for a prompt and its answer. Raises ContextLengthError when not one new token fits."""
        context = self.engine.config.text.max_position_embeddings
        check_context(len(prompt.input_ids), context - 1, media=prompt.infos)
        return min(context, len(prompt.input_ids) + max_new_tokens)

    def open_sequence(self, capacity: int) -> CachedSequence:
        """An empty sequence with room for `capacity` tokens."""
        while self.orphans:
            self.orphans.popleft().close()
        return CachedSequence.open(self.engine, capacity)

    def tell(self, prompt: Prompt) -> None:
        """Log what the model does not know, only where that is news."""
        if prompt.worded.world_warning not in (None, self._told):
            self._told = prompt.worded.world_warning
            logger.warning("%s", self._told)

    def encode(self, media: Sequence[Medium], on_progress: Progress | None = None) -> None:
        """Encode the tiles of media that no prompt asks for yet."""
        tiles = [tile for medium in media for tile in medium.tiles]
        self._encode(TileEncoder(self.engine, tiles, self.pixel_values), on_progress)

    def _encode(self, encoder: TileEncoder, on_progress: Progress | None) -> None:
        try:
            encoder.run(stage(on_progress, "tiles"))
        finally:
            self.counters.tiles_encoded += encoder.encoded

    def task(self, prompt: Prompt, sequence: CachedSequence, cache: VisionCache | None = None) -> PrefillTask:
        """What brings `sequence` to hold the prompt."""
        return PrefillTask(sequence, prompt.input_ids, prompt.tiles, self.pixel_values, cache)

    def pixel_values(self, pixels: Sequence[npt.NDArray[Any]]) -> FloatArray:
        """The encoder's input, float32 (tiles, 3, side, side), of uint8 tiles."""
        return normalize(np.stack(pixels), self.processor.config)

    def prefill(self, prompt: Prompt, sequence: CachedSequence, clock: Clock, on_progress: Progress | None = None) -> Prefilled:
        """Bring `sequence` to hold the prompt, all at once."""
        task = self.task(prompt, sequence)
        self._encode(task.encoder, on_progress)
        clock.lap("encode")
        logits = task.run()
        self.counters.tokens_prefilled += task.prefilled_tokens
        clock.lap("prefill")
        return Prefilled(sequence, logits, prompt, task.prefilled_tokens, task.encoder.encoded, clock)

    def prompt(
        self, messages: Any, options: MediaOptions, max_new_tokens: int, on_progress: Progress | None = None, clock: Clock | None = None
    ) -> Prefilled:
        """A conversation, read, worded and prefilled in a fresh sequence; the caller closes it."""
        clock = clock or Clock()
        conversation = parse_messages(messages)
        prompt = self.word(conversation, self.read_media(conversation, options, on_progress))
        self.tell(prompt)
        clock.lap("media")
        room = self.check_room(prompt, max_new_tokens)  # before the long part, not after
        sequence = self.open_sequence(room)
        try:
            return self.prefill(prompt, sequence, clock, on_progress)
        except BaseException:
            sequence.close()
            raise


def stage(on_progress: Progress | None, name: str) -> Callable[[int, int], None] | None:
    """`on_progress` for one stage."""
    return None if on_progress is None else functools.partial(on_progress, name)
