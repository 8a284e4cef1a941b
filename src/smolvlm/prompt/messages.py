"""What callers hand in as a conversation, as frozen dataclasses: the shapes that `transformers` users know, no others.

One message is `{"role": ..., "content": ...}`; its content is a string or a list of parts such as
`{"type": "text", "text": ...}` and `{"type": "image", "url": ...}`. Whatever cannot be understood is refused by name:
nothing is dropped in silence.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from smolvlm.errors import ParamsError, PromptError
from smolvlm.options.media import MediaOptions, of_medium

ROLES = ("system", "user", "assistant")

_IMAGE_SOURCES = ("image", "url", "path", "base64", "bytes")
_VIDEO_SOURCES = ("video", "url", "path", "base64", "bytes")
# The web API's words for how closely to look; "auto" leaves the choice to the caller's own options.
_WEB_DETAIL = {"auto": None, "low": "low", "high": "official", "official": "official", "fit": "fit"}


@dataclass(frozen=True)
class TextPart:
    """Text that somebody typed: never a control token, whatever it spells."""

    text: str


@dataclass(frozen=True)
class ImagePart:
    """One picture: anything that `media.load_image` reads, with the options that hold for it alone."""

    source: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: ClassVar[Literal["image"]] = "image"


@dataclass(frozen=True)
class VideoPart:
    """One video: anything that `media.sample_video` reads, a list of frames included."""

    source: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    kind: ClassVar[Literal["video"]] = "video"


@dataclass(frozen=True)
class TokenPart:
    """Exact token ids, e.g. of an earlier answer: text that is tokenized again may not give the same ids."""

    ids: tuple[int, ...]


Part: TypeAlias = TextPart | ImagePart | VideoPart | TokenPart


@dataclass(frozen=True)
class Message:
    """One turn: who speaks, and what, in order."""

    role: str
    parts: tuple[Part, ...]


class ParsedMessages(list[Message]):
    """Messages that were parsed: whoever gets one does not parse again."""


def parse_messages(messages: Any, *, images: Any = (), videos: Any = ()) -> ParsedMessages:
    """The conversation in one form; `images` and `videos` fill the bare placeholders, in order.

    Idempotent: what was parsed passes through. Raises PromptError, naming the message, for an unknown role, part or
    key, empty content, and placeholders that do not match the media given.
    """
    if isinstance(messages, ParsedMessages) and not images and not videos:
        return messages
    if isinstance(messages, str | bytes | Mapping | Message) or not isinstance(messages, Sequence):
        raise PromptError(
            f'messages is a {type(messages).__name__}; expected a list such as [{{"role": "user", "content": "What is this?"}}].'
        )
    if not messages:
        raise PromptError('messages is empty; pass at least one, such as {"role": "user", "content": "What is this?"}.')
    queues = {"image": _media_queue(images, "images"), "video": _media_queue(videos, "videos")}
    result = ParsedMessages(_message(message, f"message {i}", queues) for i, message in enumerate(messages))
    for kind, queue in queues.items():
        if left := sum(1 for _ in queue):
            raise PromptError(
                f'{kind}s=[...] holds {left} more than the messages have bare {{"type": "{kind}"}} '
                "parts; add a part for each or pass fewer."
            )
    return result


def _media_queue(media: Any, name: str) -> Iterator[Any]:
    if media is None:
        return iter(())
    if isinstance(media, str | bytes | Mapping) or not isinstance(media, Sequence):
        raise PromptError(f"{name} is a {type(media).__name__}; expected a list, one entry for each bare placeholder.")
    return iter(media)


def _message(raw: Any, where: str, queues: Mapping[str, Iterator[Any]]) -> Message:
    if isinstance(raw, Message):
        return raw
    if isinstance(raw, Sequence) and not isinstance(raw, str | bytes):
        raise PromptError(f"{where} is a list; pass one conversation at a time, not a batch of them.")
    if not isinstance(raw, Mapping):
        raise PromptError(f'{where} is a {type(raw).__name__}; expected {{"role": ..., "content": ...}}.')
    known = _without_none(raw, where)
    if unknown := sorted(str(key) for key in known if key not in ("role", "content")):
        raise PromptError(f"{where} has unknown keys ({_listed(unknown)}); a message has 'role' and 'content' only.")
    role = known.get("role")
    if not isinstance(role, str) or role not in ROLES:
        raise PromptError(f"{where} has the role {_short(role)}; expected one of {', '.join(ROLES)}.")
    content = known.get("content")
    if isinstance(content, str):
        parts: tuple[Part, ...] = (TextPart(_checked_text(content, where)),)
    elif isinstance(content, Sequence) and not isinstance(content, bytes | bytearray):
        parts = tuple(_part(part, f"{where}, part {i}", queues) for i, part in enumerate(content))
    else:
        raise PromptError(f"{where} has {type(content).__name__} as content; expected a string or a list of parts.")
    # An assistant may really have answered nothing; its empty turn is part of the conversation.
    if not parts or (role != "assistant" and all(isinstance(p, TextPart) and not p.text for p in parts)):
        raise PromptError(f"{where} ({role}) has empty content; write some text or leave the message out.")
    return Message(role, parts)


def _part(raw: Any, where: str, queues: Mapping[str, Iterator[Any]]) -> Part:
    if isinstance(raw, TextPart | ImagePart | VideoPart | TokenPart):
        return raw
    if not isinstance(raw, Mapping):
        raise PromptError(f'{where} is a {type(raw).__name__}; expected {{"type": "text", "text": ...}} or the like.')
    known = _without_none(raw, where)
    kind = known.pop("type", None)
    if kind == "text":
        text = known.pop("text", None)
        _refuse_unknown(known, where, "a text part has 'text' only")
        if not isinstance(text, str):
            raise PromptError(f"{where} is a text part whose 'text' is a {type(text).__name__}; expected a string.")
        return TextPart(_checked_text(text, where))
    if kind in ("image_url", "video_url"):
        known, kind = _web_form(known, kind, where), kind.removesuffix("_url")
    if kind == "image":
        source = _source(known, _IMAGE_SOURCES, "image", where, queues["image"])
        return ImagePart(source, _options(known, "image", where))
    if kind == "video":
        source = _source(known, _VIDEO_SOURCES, "video", where, queues["video"])
        return VideoPart(source, _options(known, "video", where))
    raise PromptError(f"{where} has the type {_short(kind)}; expected text, image, video, image_url or video_url.")


def _web_form(known: dict[str, Any], kind: str, where: str) -> dict[str, Any]:
    """`{"image_url": {"url": ..., "detail": ...}}` of the web APIs, or with a bare string there, as one of our own."""
    if "url" in known or kind not in known:
        raise PromptError(f'{where} is a {kind} part; expected {{"type": "{kind}", "{kind}": {{"url": ...}}}}.')
    inner = known.pop(kind)
    if isinstance(inner, Mapping):
        inner = _without_none(inner, where)
        detail = inner.pop("detail", "auto")
        url = inner.pop("url", None)
        _refuse_unknown(inner, where, f"{kind} has 'url' and 'detail' only")
        if not isinstance(detail, str) or detail not in _WEB_DETAIL:
            raise PromptError(f"{where} has detail={_short(detail)}; expected one of {', '.join(_WEB_DETAIL)}.")
        if kind == "image_url" and _WEB_DETAIL[detail] is not None:
            known["detail"] = _WEB_DETAIL[detail]
    else:
        url = inner
    if not isinstance(url, str):
        raise PromptError(f"{where} has a {kind} that is a {type(url).__name__}; expected a string with the address.")
    return {**known, "url": url}


def _source(known: dict[str, Any], keys: tuple[str, ...], kind: str, where: str, queue: Iterator[Any]) -> Any:
    """Take the one source key out of `known`, or the next of the media that came separately."""
    given = [key for key in keys if key in known]
    if len(given) > 1:
        raise PromptError(f"{where} names its {kind} more than once ({_listed(given)}); keep one of them.")
    if not given:
        source = next(queue, None)
        if source is None:
            article = "an" if kind == "image" else "a"
            raise PromptError(
                f"{where} is {article} {kind} placeholder without {article} {kind}; give it a 'url', "
                f"'path' or '{kind}' key, or pass {kind}s=[...] with one entry for each."
            )
        return source
    source = known.pop(given[0])
    if given[0] in ("url", "path") and isinstance(source, str) and not source:
        raise PromptError(f"{where} has an empty '{given[0]}'; name the {kind}'s file or address.")
    if given[0] == "base64" and not (isinstance(source, str) and source.startswith("data:")):
        try:
            return base64.b64decode(source, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise PromptError(f"{where} has a 'base64' that is not base64; encode the {kind}'s bytes again.") from None
    return source


def _options(known: dict[str, Any], kind: str, where: str) -> dict[str, Any]:
    allowed = of_medium(kind)
    left = {key: value for key, value in known.items() if key not in allowed}
    _refuse_unknown(left, where, f"beside its source, this kind of part ({kind}) takes {', '.join(allowed)}")
    try:
        MediaOptions(**known)  # before any medium is opened
    except ParamsError as error:
        raise ParamsError(f"{where}: {error}") from None
    return known


def _refuse_unknown(left: Mapping[str, Any], where: str, rule: str) -> None:
    if left:
        raise PromptError(f"{where} has unknown keys ({_listed(left)}); {rule}.")


def _without_none(raw: Mapping[Any, Any], where: str) -> dict[str, Any]:
    """Tables fill the keys that a row does not use with None; the reference drops those, and so do we."""
    if not all(isinstance(key, str) for key in raw):
        raise PromptError(f"{where} has a key that is not a string; expected the keys of the messages format.")
    return {key: value for key, value in raw.items() if value is not None}


def _checked_text(text: str, where: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise PromptError(f"{where} holds half a character (a lone surrogate); pass valid Unicode.") from None
    return str(text)


def _listed(names: Any) -> str:
    return ", ".join(_short(name) for name in list(names)[:5])


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
