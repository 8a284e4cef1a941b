"""Messages of the web APIs -> ours. Files by id become `StoredFile`s; text stays text, whatever it spells."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from smolvlm.errors import ParamsError, PromptError
from smolvlm.media.sandbox.limits import StoredFile
from smolvlm.options.declare import at_door
from smolvlm.options.media import MediaOptions, of_medium
from smolvlm.prompt.messages import Message, parse_messages
from smolvlm.serve.api.addresses import canonical, is_upload_id
from smolvlm.serve.api.chat_schema import Body, ChatMessage, FilePart, ImageUrl, ImageUrlPart, TextPartBody, VideoUrl, VideoUrlPart
from smolvlm.serve.api.wording import path_of, short
from smolvlm.serve.dialects import CHAT, Dialect
from smolvlm.serve.errors import ServeError

# The stored upload of an id, and whether it is an "image" or a "video". Raises ServeError for an unknown one.
FindFile = Callable[[str], Awaitable[tuple[StoredFile, str]]]

_PLACE = re.compile(r"message (\d+)(?:, part (\d+))?")  # how messages of PromptError begin
_OPTION = re.compile(r": ([a-z_]+)[= ]", re.ASCII)  # how those of ParamsError go on


async def conversation(messages: Sequence[ChatMessage], find_file: FindFile) -> list[Message]:
    """The conversation in the form of `prompt.messages`. Raises ServeError naming the place."""
    turns: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        role = "system" if message.role == "developer" else message.role
        content: Any = message.content
        if isinstance(content, list):
            content = [await _part(part, place_of("messages", i, j), find_file) for j, part in enumerate(content)]
        elif content is None:
            content = ""
        turns.append({"role": role, "content": content})
    return normalized(turns, "messages")


def normalized(turns: list[dict[str, Any]], field: str, before: bool = False) -> list[Message]:
    """`before`: a turn stands before those of `field`. Raises ServeError naming the place."""
    try:
        return parse_messages(turns)
    except (ParamsError, PromptError) as error:
        named, text = _PLACE.match(str(error)), str(error)
        if named is None or (before and named[1] == "0"):
            raise ServeError(400, text, code="invalid_value", param=field) from None
        path, rest = place_of(field, int(named[1]), None if named[2] is None else int(named[2]), before), text[named.end() :]
        option = _OPTION.match(rest) if isinstance(error, ParamsError) else None
        raise ServeError(400, f"{path}{rest}", code="invalid_value", param=f"{path}.{option[1]}" if option else path) from None


def place_of(field: str, message: int, part: int | None = None, before: bool = False) -> str:
    """Where a message or one of its parts stands in the body."""
    message -= before
    return path_of((field, message) if part is None else (field, message, "content", part))


def wrong(path: str, problem: str) -> ServeError:
    return ServeError(400, f"{path}: {problem}.", param=path, code="invalid_value")


async def _part(part: TextPartBody | ImageUrlPart | VideoUrlPart | FilePart, path: str, find_file: FindFile) -> dict[str, Any]:
    if isinstance(part, TextPartBody):
        return {"type": "text", "text": part.text}
    if isinstance(part, ImageUrlPart):
        inner: Any = ImageUrl.model_validate({"url": part.image_url}) if isinstance(part.image_url, str) else part.image_url
        return await image_part(inner.url, _either(part, inner, of_medium("image"), path), path, CHAT)
    if isinstance(part, VideoUrlPart):
        inner = VideoUrl.model_validate({"url": part.video_url}) if isinstance(part.video_url, str) else part.video_url
        return await video_part(inner.url, _either(part, inner, of_medium("video"), path), path, CHAT)
    options = _either(part, part.file, tuple(at_door(MediaOptions, "http")), path)
    wanted = options.pop("media_kind", None)
    return await file_part(part.file.file_id, find_file, options, wanted, path)


def _either(part: Body, inner: Body, names: Sequence[str], path: str) -> dict[str, Any]:
    """Options that may stand beside the address or in its object. Raises ServeError when the two disagree."""
    options: dict[str, Any] = {}
    for name in names:
        outside, inside = getattr(part, name), getattr(inner, name)
        if outside is not None and inside is not None and outside != inside:
            raise wrong(path, f"{name}={outside!r} stands beside the address and {name}={inside!r} in its object; send one")
        if (value := inside if outside is None else outside) is not None:
            options[name] = value
    return options


async def image_part(url: str, options: dict[str, Any], path: str, dialect: Dialect) -> dict[str, Any]:
    """A part for a picture by its address. Raises ServeError for a video, and for what is no address."""
    url, kind = await canonical(_checked(url, path, dialect))
    if kind == "video":
        raise wrong(path, f"the part is one for a picture and holds a video; a video is {dialect.a_video}")
    detail = {"detail": options.pop("detail")} if "detail" in options else {}
    return {"type": "image_url", "image_url": {"url": url, **detail}, **options}


async def video_part(url: str, options: dict[str, Any], path: str, dialect: Dialect) -> dict[str, Any]:
    """A part for a video by its address. Raises ServeError for a list of frames in one data URL, a form of vLLM's."""
    if url[:16].lower().startswith("data:video/jpeg;") and "," in url[url.find(",") + 1 :]:
        raise wrong(
            path,
            f"a video cannot be sent as a list of JPEG frames; send each frame as a picture, {dialect.a_picture}, or "
            f"the clip, {dialect.a_video}",
        )
    return {"type": "video_url", "video_url": (await canonical(_checked(url, path, dialect)))[0], **options}


def _checked(url: str, path: str, dialect: Dialect) -> str:
    if is_upload_id(url):
        raise wrong(path, f"{short(url)} is the id of an upload and stands where an address is expected; an upload is {dialect.an_upload}")
    return url


async def file_part(file_id: str, find_file: FindFile, options: dict[str, Any], wanted: str | None, path: str) -> dict[str, Any]:
    """A part for an upload: `wanted`, or a picture or a video as its content is; `options` of the other kind are refused."""
    try:
        stored, kind = await find_file(file_id)
    except ServeError as error:
        raise ServeError(error.status, f"{path}: {error}", code=error.code, param=path, kind=error.kind, headers=error.headers) from None
    if wanted in ("image", "video"):
        kind = wanted
    detail = options.pop("detail", None)
    if detail == "auto":
        detail = None
    if detail is not None:
        options["detail"] = "official" if detail == "high" else detail
    return {"type": kind, kind: stored, **options}
