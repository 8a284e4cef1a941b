"""Two ways to word the same prompt: the reference's, and the one that the authors trained with.

They differ (see the authors' `dataset.py`): training always had a system message, an intro before pictures and a
question marker after media. The reference has none of the three; it is the default here, and parity is measured
against it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from smolvlm.errors import PromptError
from smolvlm.prompt.messages import ImagePart, Message, Part, TextPart, VideoPart

PromptStyle = Literal["official", "training"]
PROMPT_STYLES: tuple[str, ...] = ("official", "training")

SYSTEM_MESSAGE = (
    "You are a helpful language and vision assistant. You are able to understand the visual content that the user "
    "provides, and assist the user with a variety of tasks using natural language."
)
IMAGE_INTRO = "Here are some images: "
MEDIA_OUTRO = "Now answer the following question: "


def check_style(style: str) -> None:
    """Raise PromptError for a style that does not exist."""
    if style not in PROMPT_STYLES:
        raise PromptError(f"prompt_style={style!r}: expected one of {', '.join(PROMPT_STYLES)}.")


def apply_style(messages: Sequence[Message], style: str) -> list[Message]:
    """The messages as the style words them; "official" changes nothing. Raises PromptError for an unknown style."""
    check_style(style)
    if style == "official":
        return list(messages)
    result = [] if messages[0].role == "system" else [Message("system", (TextPart(SYSTEM_MESSAGE),))]
    introduced = False
    for message in messages:
        media = [i for i, part in enumerate(message.parts) if isinstance(part, ImagePart | VideoPart)]
        parts: list[Part] = list(message.parts)
        if media:
            parts.insert(media[-1] + 1, TextPart(MEDIA_OUTRO))
            pictures = [i for i in media if isinstance(parts[i], ImagePart)]
            if pictures and not introduced:
                parts.insert(pictures[0], TextPart(IMAGE_INTRO))
            introduced = True
        result.append(Message(message.role, tuple(parts)))
    return result
