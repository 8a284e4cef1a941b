"""One LLaVA-style record -> messages: `conversations` of `from` and `value`, with `image` or `video` beside them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.errors import MixtureError
from smolvlm.prompt.messages import ImagePart, Message, Part, TextPart, VideoPart

_ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}
_PLACEHOLDER = re.compile(r"\s*(<image>|<video>)\s*")
_ADDRESS = re.compile(r"^(https?|data):", re.IGNORECASE)


@dataclass(frozen=True, eq=False)
class Record:
    """raw: the JSON object. where: dataset and number, for messages. media_root: what relative media paths start from."""

    raw: Mapping[str, Any]
    where: str
    media_root: Path = Path()
    modality: str = "image"


def check_record(record: Record) -> None:
    """Raise MixtureError for a record that `to_messages` would refuse. Opens no media."""
    to_messages(record)


def to_messages(record: Record) -> list[Message]:
    """The conversation with each placeholder replaced by its medium, in order; white space around placeholders is dropped.

    Placeholders in the words of anybody but the user, and control tokens anywhere, stay typed text. Raises MixtureError
    for a conversation without an answer, unknown speakers, and media and placeholders that do not match.
    """
    turns = record.raw.get("conversations")
    if not isinstance(turns, list) or not turns:
        raise MixtureError(f"{record.where}: no `conversations`; expected a list of {{from, value}} turns.")
    media = {"<image>": _listed(record, "image"), "<video>": _listed(record, "video")}
    if record.modality == "text" and any(media.values()):
        raise MixtureError(f"{record.where}: has media, but its dataset's modality is text; correct one of them.")
    given = {placeholder: len(sources) for placeholder, sources in media.items()}
    messages: list[Message] = []
    seen = dict.fromkeys(media, 0)
    for number, turn in enumerate(turns, start=1):
        role, text = _turn(record, number, turn)
        parts: list[Part] = [TextPart(text)]
        if role == "user":
            parts = []
            for at, piece in enumerate(_PLACEHOLDER.split(text)):
                if at % 2 == 0:
                    parts += [TextPart(piece)] if piece else []
                    continue
                seen[piece] += 1
                if seen[piece] <= given[piece]:
                    source = media[piece][seen[piece] - 1]
                    parts.append(ImagePart(source) if piece == "<image>" else VideoPart(source))
            parts = parts or [TextPart("")]
        messages.append(Message(role, tuple(parts)))
    for placeholder, count in given.items():
        if count != seen[placeholder]:
            what = placeholder.strip("<>")
            raise MixtureError(
                f"{record.where}: {count} {what}{'' if count == 1 else 's'} for {seen[placeholder]} "
                f"{placeholder} placeholders; write one for each where it belongs."
            )
    if not any(message.role == "assistant" for message in messages):
        raise MixtureError(f"{record.where}: a conversation without an answer; expected a turn from gpt.")
    return messages


def _turn(record: Record, number: int, turn: Any) -> tuple[str, str]:
    where = f"{record.where}, turn {number}"
    if not isinstance(turn, Mapping) or not isinstance(turn.get("value"), str):
        raise MixtureError(f"{where}: expected {{from, value}} with text as value.")
    role = _ROLES.get(str(turn.get("from")))
    if role is None:
        raise MixtureError(f"{where}: from is {turn.get('from')!r}; expected human, gpt or system.")
    text = turn["value"].strip()
    if role == "assistant" and not text:
        raise MixtureError(f"{where}: an empty answer, which would teach silence; write one or leave the turn out.")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise MixtureError(f"{where}: holds half a character (a lone surrogate); pass valid Unicode.") from None
    return role, text


def _listed(record: Record, kind: str) -> list[Any]:
    """The record's media of one kind with their paths resolved. For `video`, an inner list is one video's frames."""
    value = record.raw.get(kind)
    if value is None:
        return []
    items = value if isinstance(value, list) else [value]
    return [
        [_resolved(record, frame) for frame in item] if kind == "video" and isinstance(item, list) else _resolved(record, item)
        for item in items
    ]


def _resolved(record: Record, source: Any) -> Any:
    """A path from the media root; an address, or an object in memory, as it is."""
    if isinstance(source, str):
        if not source or "\0" in source:
            raise MixtureError(f"{record.where}: {source!r} is no name of a media file.")
        return source if _ADDRESS.match(source) else str(record.media_root / source)
    if source is None or isinstance(source, bool | int | float | dict | list):
        raise MixtureError(f"{record.where}: {source!r} is no name of a media file.")
    return source
