"""One question on its way to an answer: written by the engine's thread, read by the page."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from PIL import Image

from smolvlm.answers import Answer
from smolvlm.errors import SmolVLMError
from smolvlm.families.grammar import timestamp
from smolvlm.generation import GenerationParams
from smolvlm.inference.prompt import Medium
from smolvlm.media import MediaOptions

Stage: TypeAlias = Literal["waiting", "starting", "frames", "tiles", "prefill", "writing", "ended"]


class Stopped(SmolVLMError):
    """The user stopped the answer before its first word. One of ours, so that readers of media let it through."""


@dataclass(frozen=True)
class Settings:
    """What the controls say: the system prompt (None for none), and the options of media and of generation."""

    system: str | None
    media: MediaOptions
    params: GenerationParams


@dataclass(frozen=True)
class Frame:
    """A sampled frame as the model sees it, square, and its time as the prompt states it."""

    picture: Image.Image
    time: str


class Turn:
    """`wait` tells the page that something changed. All methods may be called from any thread."""

    def __init__(self, prompt: str, files: list[Path], settings: Settings, carried: list[Path] | None = None) -> None:
        """`carried`: files that were added to questions before this one and that the model has not seen yet."""
        self.prompt, self.added, self.settings = prompt, files, settings
        self.files = [*(carried or []), *files]
        self.stage: Stage = "waiting"
        self.done = self.total = 0  # of the stage's frames or tiles
        self.text = ""
        self.frames: list[Frame] = []
        self.answer: Answer | None = None
        self.error: str | None = None  # one sentence; "" is a defect of ours
        self._stop = threading.Event()
        self._cancel: Callable[[], None] | None = None
        self._changed = threading.Condition()
        self._version = 0

    @property
    def ended(self) -> bool:
        return self.stage == "ended"

    @property
    def stopped(self) -> bool:
        """Whether the user asked for the end; `ended` follows at the next token."""
        return self._stop.is_set()

    def stop(self) -> None:
        self._stop.set()
        with self._changed:
            if self._cancel is not None:
                self._cancel()

    def on_stop(self, cancel: Callable[[], None]) -> None:
        """What ends the decoding, from now on; it is called at once when the user was faster."""
        with self._changed:
            self._cancel = cancel
            if self.stopped:
                cancel()

    def raise_if_stopped(self) -> None:
        if self.stopped:
            raise Stopped("the answer was stopped.")

    def progress(self, stage: str, done: int, total: int) -> None:
        """An `on_progress` of the library. Raises Stopped."""
        self.raise_if_stopped()
        if stage == "tiles" and done == total:  # the prompt's turn comes without a word of its own
            self.enter("prefill")
        elif stage in ("frames", "tiles"):
            self.enter("frames" if stage == "frames" else "tiles", done, total)

    def enter(self, stage: Stage, done: int = 0, total: int = 0) -> None:
        with self._changed:
            self.stage, self.done, self.total = stage, done, total
            self._wake()

    def show(self, media: list[Medium]) -> None:
        """The frames of the videos among `media`."""
        with self._changed:
            self.frames = [
                Frame(Image.fromarray(tile.pixels), timestamp(seconds))
                for item in media
                if item.info.kind == "video"
                for tile, seconds in zip(item.tiles, item.info.timestamps_s, strict=True)
                if tile.pixels is not None
            ]
            self._wake()

    def write(self, piece: str) -> None:
        with self._changed:
            self.stage, self.text = "writing", self.text + piece
            self._wake()

    def end(self, answer: Answer | None = None, error: str | None = None) -> None:
        with self._changed:
            self.stage, self.answer, self.error = "ended", answer, error
            self._cancel = None
            self._wake()

    def wait(self, seen: int, timeout_s: float) -> int:
        """Wait until something came after version `seen`, at most `timeout_s`; the version now."""
        with self._changed:
            self._changed.wait_for(lambda: self._version != seen, timeout_s)
            return self._version

    def _wake(self) -> None:
        self._version += 1
        self._changed.notify_all()
