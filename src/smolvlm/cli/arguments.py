"""Which of a command's plain arguments are media and which one is the prompt; `-` is standard input for one of them."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from smolvlm.cli.console import note

if TYPE_CHECKING:
    from smolvlm.media import MediaOptions

STDIN = "-"
_MAX_PROMPT_BYTES = 1_000_000

# A suffix as media files have it, at the very end: "photo.jpg", not "Describe this picture." and not "Read it. Then stop."
_LIKE_A_FILE = re.compile(r"\.[A-Za-z][A-Za-z0-9]{1,4}$", re.ASCII)
_LIKE_A_URL = re.compile(r"^(https?|data):", re.IGNORECASE)


def split_prompt(arguments: Sequence[str], what: str = "prompt") -> tuple[list[str], str]:
    """(media, prompt): the last argument is the prompt, or `-` for standard input.

    Raises typer.BadParameter for an empty prompt, a file in its place, and standard input that is wanted twice.
    """
    *media, prompt = arguments
    _once(arguments)
    if prompt == STDIN:
        return media, _prompt_from_stdin(what)
    if not prompt.strip():
        raise typer.BadParameter(f'the {what} is empty; ask something, such as "Describe this picture.".')
    if _is_media(prompt):
        raise typer.BadParameter(f'{prompt!r} is media, but the last argument is the {what}: add one, such as "Describe this picture.".')
    if _like_media(prompt):
        problem = "is a folder" if Path(prompt).is_dir() else "no such file; check its name and folder"
        raise typer.BadParameter(f'{prompt!r}: {problem}. Behind the media comes the {what}, such as "Describe this picture.".')
    return media, prompt


def split_optional_prompt(arguments: Sequence[str]) -> tuple[list[str], str | None]:
    """(media, prompt or None): the last of several is the prompt unless it is, or looks like, a file or URL."""
    last = arguments[-1]
    _once(arguments)
    if len(arguments) < 2 or _is_media(last) or _LIKE_A_FILE.search(last):
        return list(arguments), None
    if last == STDIN:
        return list(arguments[:-1]), _prompt_from_stdin("prompt")
    if not last.strip():
        raise typer.BadParameter('the prompt is empty; leave it out, or say what to look for, such as "Read the sign.".')
    return list(arguments[:-1]), last


def opened(media: Sequence[str], options: MediaOptions, *, more_may_come: bool = False) -> list[dict[str, Any]]:
    """The media as message parts, opened and told apart: what cannot be read shows before any weights are loaded.

    Options that only a video obeys are noted where there is none, unless `more_may_come`.
    """
    from smolvlm.media import SourcePolicy
    from smolvlm.media_parts import media_parts
    from smolvlm.options.media import VIDEO_OPTIONS

    _once(media)
    parts = media_parts([_media_from_stdin() if item == STDIN else item for item in media], SourcePolicy(), options.media_kind)
    _check_kind(parts, options.media_kind)
    idle = [f"--{name.replace('_', '-')}" for name in VIDEO_OPTIONS if getattr(options, name) not in (None, "official")]
    if idle and not more_may_come and not any(part["type"] == "video" for part in parts):
        note(f"{' and '.join(idle)} {'is' if len(idle) == 1 else 'are'} for videos, and none is given: without effect.")
    return parts


def _check_kind(parts: Sequence[dict[str, Any]], wanted: str) -> None:
    """Raise typer.BadParameter where `--as` says what a file plainly is not."""
    from smolvlm.media.animation import animated_format
    from smolvlm.media.kinds import signature_kind

    for source in () if wanted == "auto" else (part[part["type"]] for part in parts):
        found = signature_kind(source.head(256))
        if found not in (None, wanted) and not animated_format(source):
            is_picture = found == "image"
            raise typer.BadParameter(
                f"{source.label} is a {'picture' if is_picture else 'video'}, not a "
                f"{'video' if is_picture else 'picture'} as --as {wanted} says; leave that out."
            )


def _once(arguments: Sequence[str]) -> None:
    if sum(argument == STDIN for argument in arguments) > 1:
        raise typer.BadParameter("'-' stands for standard input, which can be one argument only; pass the others as files or text.")


def _prompt_from_stdin(what: str) -> str:
    """All of standard input as a prompt; from a terminal one line."""
    if sys.stdin is None or sys.stdin.closed:
        raise typer.BadParameter(f"'-' reads the {what} from standard input, which is closed; pass the {what} itself.")
    if sys.stdin.isatty():
        sys.stderr.write(f"{what}: ")
        sys.stderr.flush()
        data = sys.stdin.buffer.readline(_MAX_PROMPT_BYTES + 1)
    else:
        data = sys.stdin.buffer.read(_MAX_PROMPT_BYTES + 1)
    if len(data) > _MAX_PROMPT_BYTES:
        raise typer.BadParameter(
            f"standard input holds more than {_MAX_PROMPT_BYTES:,} bytes, which is no {what}; pass media as the arguments before it."
        )
    try:
        text = data.decode("utf-8-sig").strip()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise typer.BadParameter(
            f"standard input is no text (UTF-8), and the last argument is the {what}: a picture comes "
            'before it, as in `smolvlm ask - "Describe this picture." < photo.jpg`.'
        )
    if not text:
        raise typer.BadParameter(f"standard input is empty; write the {what} to it, or pass it in place of '-'.")
    return text


def _media_from_stdin() -> Any:
    """Standard input as a binary file. Raises typer.BadParameter where nobody pipes anything in."""
    if sys.stdin is None or sys.stdin.closed or sys.stdin.isatty():
        raise typer.BadParameter(
            "'-' reads a picture or video from standard input, and nothing is piped in; write "
            '`smolvlm ask - "Describe this picture." < photo.jpg`.'
        )
    buffer: Any = sys.stdin.buffer
    if not buffer.peek(1):
        raise typer.BadParameter("standard input is empty; pipe a picture or video in, or pass a file in place of '-'.")
    return buffer


def _like_media(text: str) -> bool:
    if not _LIKE_A_FILE.search(text):
        return False  # importing `smolvlm.media` for every question takes a fifth of a second
    from smolvlm.media.suffixes import named_like_media

    return named_like_media(text)


def _is_media(text: str) -> bool:
    """A file, an address, or a folder written like one. A question may have the name of a folder here."""
    try:
        path = Path(text)
        folder = path.is_dir() and (text.endswith(("/", os.sep)) or text.startswith(("/", ".", "~")))
        return folder or path.is_file() or bool(_LIKE_A_URL.match(text))
    except (OSError, ValueError):  # too long for a name, or a null character
        return bool(_LIKE_A_URL.match(text))
