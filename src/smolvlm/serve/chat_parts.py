"""Messages of the web APIs -> ours. Files by id become `StoredFile`s; text stays text, whatever it spells."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from smolvlm.errors import PromptError
from smolvlm.prompt.messages import Message, normalise_messages
from smolvlm.serve.chat_schema import ChatMessage, FilePart, ImageUrlPart, TextPartBody, VideoUrlPart
from smolvlm.serve.errors import ServeError
from smolvlm.serve.media_limits import StoredFile

# The stored upload of an id, and whether it is an "image" or a "video". Raises ServeError for an unknown one.
FindFile = Callable[[str], Awaitable[tuple[StoredFile, str]]]

SAMPLING = ("fps", "max_frames", "start", "end", "sampling", "tone_map")


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
        value: Any = part.image_url if isinstance(part.image_url, str) else part.image_url.model_dump(exclude_none=True)
        return {"type": "image_url", "image_url": value}
    if isinstance(part, VideoUrlPart):
        url = part.video_url if isinstance(part.video_url, str) else part.video_url.url
        return {"type": "video_url", "video_url": url, **part.model_dump(include=set(SAMPLING), exclude_none=True)}
    return await file_part(
        part.file.file_id, find_file, part.model_dump(include={*SAMPLING, "detail"}, exclude_none=True)
    )


async def file_part(file_id: str, find_file: FindFile, options: dict[str, Any]) -> dict[str, Any]:
    """A part for an upload: a picture or a video, as its content is; `options` of the other kind are refused."""
    stored, kind = await find_file(file_id)
    detail = options.pop("detail", None)
    if detail == "auto":
        detail = None
    if detail is not None:
        options["detail"] = "official" if detail == "high" else detail
    return {"type": kind, kind: stored, **options}
