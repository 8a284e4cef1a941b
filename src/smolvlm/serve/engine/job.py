"""One request as the scheduler sees it, and what the scheduler says about it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from smolvlm.generation import GenerationParams, Grammar, TokenEvent
from smolvlm.inference.tiles import Tile


@dataclass(frozen=True)
class Started:
    """The prompt is prefilled: how much of it was paid for before, and how long it waited in the queue."""

    cached_tokens: int
    encoded_tiles: int
    queued_s: float


@dataclass(frozen=True)
class Progressed:
    """New tokens; `request_index` of each event is the choice it belongs to."""

    events: Sequence[TokenEvent]


@dataclass(frozen=True)
class Failed:
    """The job is over without an answer."""

    error: BaseException


Update: TypeAlias = Started | Progressed | Failed


@dataclass(eq=False)
class Job:
    """A prompt and the answers wanted for it: one for each of `params`, with its own grammar or None.

    `listener` is called in the engine's thread and must not block. `deadline` is a time of `time.monotonic`. The job is over
    when every choice had an event with a finish_reason, or after `Failed`; `cancel` ends it at the next step, without a word.
    """

    owner: str
    input_ids: tuple[int, ...]
    tiles: Sequence[Tile]
    params: tuple[GenerationParams, ...]
    grammars: tuple[Grammar | None, ...]
    listener: Callable[[Update], None]
    time_limit_s: float
    submitted_at: float = field(default_factory=time.monotonic)
    _cancelled: threading.Event = field(default_factory=threading.Event)

    @property
    def tile_keys(self) -> list[str]:
        return [tile.key for tile in self.tiles]

    @property
    def pixel_bytes(self) -> int:
        """Bytes of pixels that wait for the encoder."""
        return sum(tile.pixels.nbytes for tile in self.tiles if tile.pixels is not None)

    def lengths(self, context: int) -> list[int]:
        """Tokens that the sequence of each choice may come to, prompt and answer."""
        prompt = len(self.input_ids)
        return [prompt + min(params.max_new_tokens, max(0, context - prompt)) for params in self.params]

    @property
    def expired(self) -> bool:
        return time.monotonic() - self.submitted_at > self.time_limit_s

    @property
    def cancelled(self) -> bool:
        return self._cancelled.is_set()

    def cancel(self) -> None:
        self._cancelled.set()
