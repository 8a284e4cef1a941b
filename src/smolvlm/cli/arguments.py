"""Which of a command's plain arguments are media and which one is the prompt."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from smolvlm.media import MediaOptions

# A suffix as media files have it, at the very end: "photo.jpg", not "What is this?" and not "Read it. Then stop."
_LIKE_A_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$", re.ASCII)
_LIKE_A_URL = re.compile(r"^(https?|data):", re.IGNORECASE)


def split_prompt(arguments: Sequence[str], what: str = "prompt") -> tuple[list[str], str]:
    """(media, prompt): the last argument is the prompt. Raises typer.BadParameter when a file stands in its place."""
    *media, prompt = arguments
    if _is_file(prompt) or _LIKE_A_URL.match(prompt):
        raise typer.BadParameter(f"{prompt!r} is media, but the last argument is the {what}: add one, "
                                 'such as "What is this?".')  # fmt: skip
    return media, prompt


def split_optional_prompt(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """(media, prompt or None): the last of several is the prompt unless it is, or looks like, a file or URL."""
    last = arguments[-1]
    if len(arguments) < 2 or _is_file(last) or _LIKE_A_URL.match(last) or _LIKE_A_FILE.search(last):
        return list(arguments), None
    return list(arguments[:-1]), last


def opened(media: Sequence[str], options: MediaOptions) -> list[dict[str, Any]]:
    """The media as message parts, opened and told apart: what cannot be read shows before any weights are loaded."""
    from smolvlm.media import SourcePolicy
    from smolvlm.media_parts import media_parts

    return media_parts(list(media), SourcePolicy(), options.media_kind)


def _is_file(text: str) -> bool:
    """Whether `text` names a file, or a folder with its final slash: "photos" may be a question, "photos/" is none."""
    try:
        return os.path.isfile(text) or (text.endswith(("/", os.sep)) and os.path.isdir(text))
    except ValueError:  # a null character
        return False
