"""The conversation of one tab: a session whose later turns may bring media and settings of their own.

What was asked about stays encoded, and the KV cache keeps what the next prompt shares with the one before.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smolvlm.media import Source, media_kind
from smolvlm.ui.turn import Turn
from smolvlm.vlm import SmolVLM


class Conversation:
    """All methods belong to the engine's thread. A turn that fails, or is stopped while its media are read, leaves no trace."""

    def __init__(self, model: SmolVLM) -> None:
        self._session = model.session()
        self._limits = model.processor.policy.limits

    def answer(self, turn: Turn) -> None:
        """Answer one turn, piece by piece, to its end. Raises Stopped, or the SmolVLMError of what is wrong with it."""
        session, settings = self._session, turn.settings
        session.configure(settings.system, settings.media, settings.params)
        brought = 0
        try:
            media = session.add([self._part(path) for path in turn.files], on_progress=turn.progress)
            brought = len(media)
            turn.show(media)
            if media:
                turn.progress("tiles", 0, sum(medium.info.tile_count for medium in media))
            stream = session.stream(turn.prompt, on_progress=turn.progress)
            turn.on_stop(stream.cancel)
            for piece in stream:
                turn.write(piece)
        except BaseException:
            session.take_back(brought)
            raise
        turn.end(stream.answer)

    def close(self) -> None:
        """Free the KV cache."""
        self._session.close()

    def _part(self, path: Path) -> dict[str, Any]:
        """An uploaded file as a part of a message; errors call it by its own name, not by where it was put."""
        source = Source(path.name, path=path)
        kind = media_kind(source, self._limits)
        return {"type": kind, kind: source}
