"""Messages of the web APIs -> ours. Files by id become `StoredFile`s; text stays text, whatever it spells."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from smolvlm.errors import PromptError
from smolvlm.media.kinds import MediaKind, signature_kind
from smolvlm.prompt.messages import Message, normalise_messages
from smolvlm.serve.chat_schema import (
    Body,
    ChatMessage,
    FilePart,
    ImageUrl,
    ImageUrlPart,
    TextPartBody,
    VideoUrl,
    VideoUrlPart,
)
from smolvlm.serve.errors import ServeError
from smolvlm.serve.media_limits import StoredFile

# The stored upload of an id, and whether it is an "image" or a "video". Raises ServeError for an unknown one.
FindFile = Callable[[str], Awaitable[tuple[StoredFile, str]]]

APPEARANCE = ("tone_map", "background")
SAMPLING = ("fps", "max_frames", "start", "end", "sampling", *APPEARANCE)
_SNIFFED_CHARS = 512  # 384 bytes: more than two packets of an MPEG transport stream


async def conversation(messages: Sequence[ChatMessage], find_file: FindFile) -> list[Message]:
    """The conversation in the form of `prompt.messages`. Raises PromptError or ServeError naming the message."""
    turns: list[dict[str, Any]] = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        content: Any = message.content
        if isinstance(content, list):
            content = [await _part(part, find_file) for part in content]
        elif content is None:
            content = ""
        turns.append({"role": role, "content": content})
    try:
        return normalise_messages(turns)
    except PromptError as error:
        raise ServeError(400, str(error), code="invalid_value", param="messages") from None


async def _part(part: TextPartBody | ImageUrlPart | VideoUrlPart | FilePart, find_file: FindFile) -> dict[str, Any]:
    if isinstance(part, TextPartBody):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImageUrlPart):
        inner: Any = ImageUrl.model_validate({"url": part.image_url}) if isinstance(part.image_url, str) else part.image_url
        return image_part(inner.url, _either(part, inner, ("detail", *APPEARANCE)))
    if isinstance(part, VideoUrlPart):
        inner = VideoUrl.model_validate({"url": part.video_url}) if isinstance(part.video_url, str) else part.video_url
        return video_part(inner.url, _either(part, inner, SAMPLING))
    options = part.model_dump(include={*SAMPLING, "detail"}, exclude_none=True)
    return await file_part(part.file.file_id, find_file, options, part.media_kind)


def _either(part: Body, inner: Body, names: Sequence[str]) -> dict[str, Any]:
    """Options that may stand beside the address or in its object. Raises ServeError when the two disagree."""
    options: dict[str, Any] = {}
    for name in names:
        outside, inside = getattr(part, name), getattr(inner, name)
        if outside is not None and inside is not None and outside != inside:
            raise ServeError(400, f"{name}={outside!r} stands beside the address and {name}={inside!r} in its object; send one.",
                             param="messages", code="invalid_value")  # fmt: skip
        if (value := inside if outside is None else outside) is not None:
            options[name] = value
    return options


def image_part(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """A part for a picture by its address. Raises ServeError for a video."""
    url, kind = _address(url)
    if kind == "video":
        raise ServeError(400, 'an image_url part holds a video; send {"type": "video_url", "video_url": {"url": ...}}.',
                         param="messages", code="invalid_value")  # fmt: skip
    detail = {"detail": options.pop("detail")} if "detail" in options else {}
    return {"type": "image_url", "image_url": {"url": url, **detail}, **options}


def video_part(url: str, options: dict[str, Any]) -> dict[str, Any]:
    """A part for a video by its address. Raises ServeError for a list of frames in one data URL, a form of vLLM's."""
    if url[:16].lower().startswith("data:video/jpeg;") and "," in url[url.find(",") + 1 :]:
        raise ServeError(400, "a video cannot be sent as a list of JPEG frames; send each frame as an image_url part, or the clip "
                         "as data:video/mp4;base64,....", param="messages", code="invalid_value")  # fmt: skip
    return {"type": "video_url", "video_url": _address(url)[0], **options}


def _address(url: str) -> tuple[str, MediaKind | None]:
    """The address, and the kind that the first bytes of its data tell. Bare base64 of such bytes becomes a data URL."""
    head = url[:_SNIFFED_CHARS]
    inline = head[:5].lower() == "data:"
    if inline:
        head = head.partition(",")[2] if ";base64," in head.lower() else ""
    head = "".join(head.split())
    try:
        start = base64.b64decode(head[: len(head) // 4 * 4], validate=True)
    except (binascii.Error, ValueError):
        return url, None
    kind = signature_kind(start)
    if kind is None or inline:
        return url, kind
    return f"data:{kind}/unknown;base64,{''.join(url.split())}", kind


async def file_part(file_id: str, find_file: FindFile, options: dict[str, Any], wanted: str | None) -> dict[str, Any]:
    """A part for an upload: `wanted`, or a picture or a video as its content is; `options` of the other kind are refused."""
    stored, kind = await find_file(file_id)
    if wanted in ("image", "video"):
        kind = wanted
    detail = options.pop("detail", None)
    if detail == "auto":
        detail = None
    if detail is not None:
        options["detail"] = "official" if detail == "high" else detail
    return {"type": kind, kind: stored, **options}
