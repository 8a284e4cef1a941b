"""The conversation of one tab: a session whose later turns may bring media and settings of their own.

What was asked about stays encoded, and the KV cache keeps what the next prompt shares with the one before.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from smolvlm.inference.runtime import Clock, Progress, stage
from smolvlm.media import Source, media_kind
from smolvlm.processor import ModelInputs, PreparedMedia
from smolvlm.session import Session
from smolvlm.ui.turn import Turn
from smolvlm.vlm import SmolVLM


class Conversation(Session):
    """All methods belong to the engine's thread. A turn that fails, or is stopped while its media are read, leaves no trace."""

    def __init__(self, model: SmolVLM, turn: Turn) -> None:
        """`turn` is the first one; its settings hold until the next."""
        super().__init__(model.runtime, (), turn.settings.system, turn.settings.media, turn.settings.params)
        self._turn = turn
        self._seen: list[PreparedMedia] = []  # of all turns; their pixels are gone
        self._limits = model.processor.policy.limits

    def answer(self, turn: Turn) -> None:
        """Answer one turn, piece by piece, to its end. Raises Stopped, or the SmolVLMError of what is wrong with it."""
        before = self._seen, self._embeds
        self._turn = turn
        self._options, self._params = turn.settings.media, turn.settings.params
        self.system = turn.settings.system
        try:
            stream = self.stream(turn.prompt, on_progress=turn.progress)
            turn.on_stop(stream.cancel)
            for piece in stream:
                turn.write(piece)
            answer = stream.answer
        except BaseException:
            self._seen, self._embeds = before
            raise
        self._seen = [PreparedMedia(media.info, media.tiles[:0].copy()) for media in self._seen]
        turn.end(answer)

    def _inputs(self, messages: Sequence[Mapping[str, Any]], on_progress: Progress | None, clock: Clock) -> tuple[ModelInputs, int]:
        """The prompt. The media of this turn join its own message, and they alone are read and encoded."""
        processor, turn = self._runtime.processor, self._turn
        # The list that `stream` made for this turn, and keeps when the turn is remembered.
        messages[-1]["content"][:0] = [self._part(path) for path in turn.files]
        fresh = processor.prepare_media(messages[-1:], options=self._options, on_frame=stage(on_progress, "frames"))
        turn.show(fresh)
        self._seen = [*self._seen, *fresh]
        inputs = processor.build(messages, self._seen)
        self._runtime.room(inputs, self._params.max_new_tokens)
        clock.lap("media")
        if fresh:  # `inputs.tiles` holds the pixels of these only
            turn.progress("tiles", 0, len(inputs.tiles))
            self._embeds = [*self._embeds, *self._runtime.encode(inputs, on_progress)]
        clock.lap("encode")
        return inputs, len(inputs.tiles)

    def _part(self, path: Path) -> dict[str, Any]:
        """An uploaded file as a part of a message; errors call it by its own name, not by where it was put."""
        source = Source(path.name, path=path)
        kind = media_kind(source, self._limits)
        return {"type": kind, kind: source}
