"""Fields of a request that this server does not act on: harmless, refused with what to send instead, or named in the answer.

Nothing is ignored in silence. A field that would change the answer elsewhere is a 400 that names it. A field that nobody
here knows is named in the answer's `warnings`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel

from smolvlm.options.declare import at_door
from smolvlm.options.media import MediaOptions
from smolvlm.serve.api import chat_schema, responses_schema
from smolvlm.serve.api.chat_schema import ChatRequest
from smolvlm.serve.api.option_fields import what_has
from smolvlm.serve.api.remedies import FIXED, HARMLESS, REMEDIES, Level
from smolvlm.serve.api.responses_schema import ResponsesRequest
from smolvlm.serve.api.wording import path_of
from smolvlm.serve.dialects import CHAT, RESPONSES, Dialect
from smolvlm.serve.errors import ServeError

_LEVELS: dict[type[BaseModel], Level] = {
    ChatRequest: "top",
    ResponsesRequest: "top",
    chat_schema.ChatMessage: "message",
    responses_schema.InputMessage: "message",
    chat_schema.ImageUrl: "address",
    chat_schema.VideoUrl: "address",
    chat_schema.FileRef: "address",
    chat_schema.ResponseFormat: "format",
    chat_schema.JsonSchemaFormat: "format",
    responses_schema.TextFormat: "format",
    responses_schema.TextConfig: "format",
    chat_schema.StreamOptions: "options",
    responses_schema.ResponsesStreamOptions: "options",
}  # all others are parts
_TOP_FIELDS = {CHAT.path: frozenset(ChatRequest.model_fields), RESPONSES.path: frozenset(ResponsesRequest.model_fields)}
_OF_MEDIA = {name: what_has(name) for name in at_door(MediaOptions, "http")}
_MOST_WARNINGS = 32
_ALIKE = 0.85  # of difflib: a letter more, less or swapped in a name

Place = tuple[str | int, ...]


def check_fields(body: ChatRequest | ResponsesRequest) -> tuple[str, ...]:
    """One sentence for each field that changes nothing here. Raises ServeError 400 that names a field to mend."""
    dialect = CHAT if isinstance(body, ChatRequest) else RESPONSES
    _check_tools(body)
    warnings: dict[str, None] = {}
    for place, owner, name, value in _unknown(body, ()):
        level = _LEVELS.get(type(owner), "part")
        if level == "top" and name in FIXED:
            changes_nothing, remedy = FIXED[name]
            if value is not None and value != changes_nothing:
                raise refused((*place, name), remedy)
            continue
        if _says_nothing(value) or name in HARMLESS[level]:
            continue
        if remedy_here := _remedy(dialect, level, owner, name):
            raise refused((*place, name), remedy_here)
        if len(warnings) < _MOST_WARNINGS:
            warnings[f"{path_of((*place, name))}: {_unused(level, owner, name)}"] = None
    return tuple(warnings)


def check_names(body: dict[str, Any], dialect: Dialect) -> None:
    """Raises ServeError 400 for a name of another API at the top of a body that lacks what this one needs."""
    for name, value in body.items():
        remedy = REMEDIES[dialect.path]["top"].get(name)
        if remedy is not None and name not in _TOP_FIELDS[dialect.path] and not _says_nothing(value):
            raise refused((name,), remedy)


def refused(place: Place, remedy: str) -> ServeError:
    path = path_of(place)
    return ServeError(400, f"{path}: {remedy}.", param=path, code="unsupported_parameter")


def _remedy(dialect: Dialect, level: Level, owner: BaseModel, name: str) -> str | None:
    """What to send instead of a field that would change the answer elsewhere; None for one that nobody knows."""
    own = REMEDIES[dialect.path]
    if name in own[level]:
        return own[level][name]
    top = _TOP_FIELDS[dialect.path]
    if level == "top":
        if name in _OF_MEDIA:
            example = dialect.a_picture if _OF_MEDIA[name] == "a picture" else dialect.a_video
            return f"{name} belongs in the part that holds {_OF_MEDIA[name]}, such as {example}"
        if name in _TOP_FIELDS[CHAT.path]:
            return f"{RESPONSES.path} does not have it; leave it out, or use {CHAT.path}"
    elif name in top - {dialect.conversation, "user"}:
        return f"{name} belongs at the top level of the request"
    elif name in own["top"] and name not in _OF_MEDIA:
        return own["top"][name]
    elif name in _OF_MEDIA and level == "message":
        return f"{name} belongs in the part that holds {_OF_MEDIA[name]}"
    meant = next((known for known in _names(owner) if _bare(known) == _bare(name)), None)
    return f"send {meant}" if meant is not None else None  # maxTokens, TopP


def _unused(level: Level, owner: BaseModel, name: str) -> str:
    if level in ("part", "address") and name in _OF_MEDIA:
        return f"this field is for {_OF_MEDIA[name]} and changed nothing."
    alike = difflib.get_close_matches(name[:64].lower(), _names(owner), 1, _ALIKE)
    return f"this field is unknown here{f' (did you mean {alike[0]}?)' if alike else ''} and changed nothing."


def _names(owner: BaseModel) -> list[str]:
    """The names that a client may send there."""
    return [field.alias or name for name, field in type(owner).model_fields.items()]


def _bare(name: str) -> str:
    return name[:64].replace("_", "").replace("-", "").lower()


def _check_tools(body: ChatRequest | ResponsesRequest) -> None:
    for name, choice in (("tools", "tool_choice"), ("functions", "function_call")):
        if choice not in type(body).model_fields:
            continue
        wanted = getattr(body, choice, None)
        if wanted == "none":
            continue
        if getattr(body, name, None):
            raise refused((name,), f'this model calls no {name}; leave {name} out, or send {choice}="none"')
        if wanted not in (None, "auto"):
            raise refused((choice,), f'this model calls no {name}; leave {choice} out, or send "none"')
    if isinstance(body, ChatRequest):
        if body.logit_bias:
            raise refused(("logit_bias",), REMEDIES[CHAT.path]["top"]["logit_bias"])
        for i, message in enumerate(body.messages):
            if message.tool_calls:
                raise refused(("messages", i, "tool_calls"), "this model calls no tools; say what was called as text")
        return
    if body.previous_response_id is not None:
        raise refused(("previous_response_id",), "nothing is stored; send the whole conversation in input")
    if body.background:
        raise refused(("background",), "nothing is stored; leave it out and read the answer, or its stream")


def _says_nothing(value: Any) -> bool:
    """Whether a field is there without a wish: clients fill what they do not use with null, false or empty values."""
    return value is None or value is False or (isinstance(value, str | list | dict) and not value)


def _unknown(body: BaseModel, place: Place) -> Iterator[tuple[Place, BaseModel, str, Any]]:
    """Every field that its model does not have: the place of the object, the object, the field's name and value."""
    for name, value in (body.model_extra or {}).items():
        yield place, body, name, value
    for name in type(body).model_fields:
        value = getattr(body, name)
        label = type(body).model_fields[name].alias or name
        if isinstance(value, BaseModel):
            yield from _unknown(value, (*place, label))
        elif isinstance(value, list):
            for i, item in enumerate(value):
                if isinstance(item, BaseModel):
                    yield from _unknown(item, (*place, label, i))
