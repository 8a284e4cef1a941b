"""A request as the backend takes it: its media by their places in the body, and the words when one cannot be opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from smolvlm.errors import SmolVLMError, VideoError
from smolvlm.generation import GenerationParams
from smolvlm.prompt.messages import ImagePart, Message, VideoPart
from smolvlm.serve.api.addresses import holds_picture
from smolvlm.serve.api.chat_parts import place_of
from smolvlm.serve.dialects import Dialect
from smolvlm.serve.engine.backend import Ask
from smolvlm.serve.errors import ServeError, at_part


def ask_of(
    messages: Sequence[Message],
    params: tuple[GenerationParams, ...],
    owner: str,
    schema: dict[str, Any] | None,
    dialect: Dialect,
    before: bool = False,
) -> Ask:
    """`before`: a message stands before those that the client's list has."""
    media = {
        place_of(dialect.conversation, i, j, before): part
        for i, message in enumerate(messages)
        for j, part in enumerate(message.parts)
        if isinstance(part, ImagePart | VideoPart)
    }

    def refusal(place: str, error: SmolVLMError) -> ServeError:
        part = media[place]
        if isinstance(part, VideoPart) and isinstance(error, VideoError) and holds_picture(part.source):
            error = VideoError(f"the part is one for a video and holds a picture; a picture is {dialect.a_picture}.")
        return at_part(error, place)

    return Ask(messages, params, owner, media, refusal, schema)
