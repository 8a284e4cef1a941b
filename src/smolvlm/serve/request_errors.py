"""What a client is told about a body that does not fit: the field, the type of the part, and what to send."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from smolvlm.serve.errors import ServeError

_SEND_PARTS = {
    "messages": "send text, image_url, video_url or file",
    "input": "send input_text, input_image, input_video or input_file",
}
# Types that other APIs have, and what takes their place here.
_PART_HINTS = {
    "input_audio": "sound is not understood",
    "audio": "sound is not understood",
    "audio_url": "sound is not understood",
    "input_image": 'chat completions take {"type": "image_url", "image_url": {"url": ...}}',
    "input_video": 'chat completions take {"type": "video_url", "video_url": {"url": ...}}',
    "input_text": 'chat completions take {"type": "text", "text": ...}',
    "output_text": 'chat completions take {"type": "text", "text": ...}',
    "input_file": 'chat completions take {"type": "file", "file": {"file_id": ...}}',
    "image": 'a picture is {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}',
    "image_file": 'a picture is {"type": "image_url", "image_url": {"url": "data:image/png;base64,..."}}',
    "video": 'a video is {"type": "video_url", "video_url": {"url": "data:video/mp4;base64,..."}}, frames are one image_url each',
    "refusal": "send a refusal as text",
    "tool_use": "this model calls no tools",
    "tool_result": "this model calls no tools",
    "function_call": "this model calls no tools",
    "function_call_output": "this model calls no tools",
}
_SHOWN_CHARS = 60


def invalid_request(errors: Sequence[Mapping[str, Any]], content_type: str) -> ServeError:
    """The first of pydantic's `errors` as OpenAI's error; `content_type` is the request's header, "" without one."""
    first = errors[0]
    if first["type"] == "json_invalid":
        return ServeError(400, f"the body is not valid JSON ({_line(first['msg'])}).", code="invalid_json")
    place = [part for part in first["loc"] if part not in ("body", "query", "path")]
    if not place and "json" not in content_type.lower():
        sent = f"came as {_line(content_type)[:_SHOWN_CHARS]!r}" if content_type else "came without a Content-Type"
        return ServeError(415, f"the body {sent}; send JSON with the header Content-Type: application/json.",
                          code="unsupported_media_type")  # fmt: skip
    tags = [part for part in place if _is_tag(part)]
    param = ".".join(str(part) for part in place if not _is_tag(part))[:200] or None
    return ServeError(400, f"{param or 'the request'}{_sentence(first, place, tags)}.", code="invalid_value", param=param)


def _sentence(error: Mapping[str, Any], place: Sequence[Any], tags: Sequence[str]) -> str:
    """What is wrong there, after the path and without a full stop."""
    api = "input" if "input" in place[:1] else "messages"
    given = error.get("input")
    if error["type"] in ("union_tag_invalid", "union_tag_not_found"):
        if ("content" not in place and api == "messages") or not isinstance(place[-1], int):
            return f": expected {_shapes(place)}, not {_shape_of(given)}"
        kind = given.get("type") if isinstance(given, Mapping) else None
        if not isinstance(kind, str):
            return f': expected a part, an object with a "type", not {_shape_of(given)}; {_SEND_PARTS[api]}'
        hint = _PART_HINTS.get(kind) if api == "messages" or not kind.startswith(("input_", "output_")) else None
        hint = "sound is not understood" if kind == "input_audio" else hint
        return f": a part of the type {_short(kind)} is not known here; {hint or _SEND_PARTS[api]}"
    reason = _line(str(error["msg"]))
    if place and place[-1] == "role" and given in ("tool", "function"):
        reason = f"a message of the role {given!r} is not known here, since this model calls no tools; send its content as user text"
    elif place and place[-1] == "type" and api == "input" and isinstance(given, str):
        reason = f"an item of the type {_short(given)} is not known here; {_PART_HINTS.get(given, 'send messages')}"
    part = next((tag[1:-1] for tag in reversed(tags) if tag not in ("(text)", "(list)", "(object)")), None)
    inside = f" (in a part of the type {_short(part)})" if part else ""
    return f"{inside}: {reason[:1].lower()}{reason[1:]}"


def _is_tag(part: Any) -> bool:
    """Tags of unions stand in brackets, see `chat_schema.tag_of_part`; they are no part of the path that was sent."""
    return isinstance(part, str) and part.startswith("(")


def _shapes(place: Sequence[Any]) -> str:
    named = next((part for part in reversed(place) if isinstance(part, str) and not _is_tag(part)), "")
    return {"content": "text or a list of parts", "input": "text or a list of messages"}.get(named, "text or an object with a url")


def _shape_of(value: Any) -> str:
    if isinstance(value, Mapping):
        keys = ", ".join(_short(key) for key in list(value)[:5])
        return f"an object with {keys}" if keys else "an empty object"
    names = {str: "text", list: "a list", bool: "a boolean", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), "something else")


def _short(text: Any) -> str:
    shown = repr(_line(str(text)))
    return shown if len(shown) <= _SHOWN_CHARS else f"{shown[:_SHOWN_CHARS - 3]}..."


def _line(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text)[:300]
