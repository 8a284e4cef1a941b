"""What a client is told about a body that does not fit: the field, what stood there, what is expected, and what to send.

The words are ours throughout: of the validating library's error only its type, its bounds and the place are read.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel

from smolvlm.serve.api.chat_schema import ChatRequest
from smolvlm.serve.api.remedies import PART_TYPES, REMEDIES
from smolvlm.serve.api.request_fields import check_names, refused
from smolvlm.serve.api.responses_schema import ResponsesRequest
from smolvlm.serve.api.wording import path_of, shape_of, short
from smolvlm.serve.dialects import CHAT, RESPONSES, Dialect
from smolvlm.serve.errors import ServeError

UPLOAD = "send a form: curl -F file=@photo.png -F purpose=vision http://.../v1/files"
_UNIONS = ("union_tag_invalid", "union_tag_not_found")
# By the last name of a place: what stands there where several shapes are taken.
_EITHER = {
    "content": "a string or a list of parts",
    "input": "a string or a list of messages",
    "stop": "a string or a list of strings",
    "image_url": "a string or an object with a url",
    "video_url": "a string or an object with a url",
}
_WITHOUT_BOUNDS = {
    "string_type": "a string",
    "string_sub_type": "a string",
    "string_unicode": "a string of whole characters, without half of a surrogate pair",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "int_parsing": "a whole number",
    "int_parsing_size": "a whole number that is not as large",
    "float_type": "a number",
    "finite_number": "a number that is not as large",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}
_BOUNDED: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "greater_than_equal": lambda bounds: f"a number of at least {bounds['ge']}",
    "greater_than": lambda bounds: f"a number above {bounds['gt']}",
    "less_than_equal": lambda bounds: f"a number of at most {bounds['le']}",
    "less_than": lambda bounds: f"a number below {bounds['lt']}",
    "literal_error": lambda bounds: f"{'one of ' if ' or ' in bounds['expected'] else ''}{bounds['expected']}",
    "too_short": lambda bounds: f"at least {bounds['min_length']} item",
    "too_long": lambda bounds: f"at most {bounds['max_length']} items",
    "string_too_short": lambda bounds: f"at least {bounds['min_length']} character",
    "string_too_long": lambda bounds: f"at most {bounds['max_length']} characters",
}


def _numbers(model: type[BaseModel]) -> dict[str, str]:
    """What each field that holds a number takes, by the bounds of its declaration."""
    found = {}
    for name, field in model.model_fields.items():
        kinds = set(get_args(field.annotation)) & {int, float}
        if kinds:
            bounds = {key: getattr(bound, key) for bound in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(bound, key)}
            low, high = bounds.get("ge", bounds.get("gt")), bounds.get("le", bounds.get("lt"))
            words = f" of at least {low}" if high is None else f" {'over' if 'gt' in bounds else 'from'} {low} up to {high}"
            words = " of 64 bits" if name == "seed" else words
            found[name] = f"a {'whole ' if int in kinds else ''}number{words}"
    return found


_NUMBERS = _numbers(ChatRequest) | _numbers(ResponsesRequest)
_EXAMPLES = {
    "response_format": '{"response_format": {"type": "json_object"}}',
    "text": '{"text": {"format": {"type": "json_object"}}}',
    "stream_options": '{"stream_options": {"include_usage": true}}',
    "stop": '{"stop": ["END"]}',
    "modalities": '{"modalities": ["text"]}',
    "metadata": '{"metadata": {"name": "value"}}',
    "include": '{"include": ["message.output_text.logprobs"]}',
}


def not_json(content_type: str) -> ServeError:
    """Of a body whose head, "" without one, does not say that it is JSON."""
    sent = f"came as {short(content_type)}" if content_type else "came without a Content-Type"
    return ServeError(415, f"the body {sent}; send JSON with the header Content-Type: application/json.", code="unsupported_media_type")


def invalid_body(shape: str, dialect: Dialect) -> ServeError:
    """Of a body that is no object."""
    example = f'{{"model": "...", {dialect.a_conversation[1:]}'
    return ServeError(400, f"the body is {shape}; expected a JSON object such as {example}.", code="invalid_value")


def invalid_request(errors: Sequence[Mapping[str, Any]], dialect: Dialect | None, model: str) -> ServeError:
    """The first of the validator's `errors` as OpenAI's error. `dialect`: None for a route that takes no JSON."""
    error = errors[0]
    place = [part for part in error["loc"] if part not in ("body", "query", "path", "[key]") and not _is_tag(part)]
    tags = [part[1:-1] for part in error["loc"] if _is_tag(part)]
    given = error.get("input")
    if dialect is None:
        return _invalid(place, f"{_problem(error, place)}{f'; {UPLOAD}' if error['loc'][0] == 'body' else ''}.")
    if error["type"] == "missing" and len(place) == 1 and isinstance(given, dict):
        check_names(given, dialect)  # what the client sent in its place says more
    own = _of_a_message(error, place, dialect) or _of_a_part(error, place, tags, dialect)
    if own is not None:
        return _invalid(place, f"{own}.")
    example = _example(place, dialect, model)
    return _invalid(place, f"{_problem(error, place)}{f'; send {example}' if example else ''}.")


def _invalid(place: Sequence[str | int], message: str) -> ServeError:
    path = path_of(place)
    colon = "" if message.startswith("is missing") else ":"
    return ServeError(400, f"{path or 'the request'}{colon} {message}", code="invalid_value", param=path or None)


def _problem(error: Mapping[str, Any], place: Sequence[str | int]) -> str:
    """What was expected there, and what came."""
    kind, bounds = error["type"], error.get("ctx") or {}
    if kind == "missing":
        return "is missing"
    if kind in _UNIONS:
        named = next((part for part in reversed(place) if isinstance(part, str)), "")
        expected = _EITHER.get(named, "another value")
    elif len(place) == 1 and (numbers := _NUMBERS.get(str(place[0]))) is not None:
        expected = numbers
    elif kind in _BOUNDED:
        expected = _BOUNDED[kind](bounds)
    else:
        expected = _WITHOUT_BOUNDS.get(kind, "a file" if place == ["file"] else "another value")
    given = error.get("input")
    came = f"{len(given)} items" if kind == "too_long" and isinstance(given, list) else shape_of(given)
    return f"expected {expected}, not {came}"


def _of_a_message(error: Mapping[str, Any], place: Sequence[str | int], d: Dialect) -> str | None:
    """About something that stands where a message should, or about a message of another API."""
    given = error.get("input")
    if place[:1] != [d.conversation] or "content" in place:
        return None
    if len(place) == 3 and place[2] == "role" and given in ("tool", "function"):
        return f"a message of the role {given!r} is not known here, since this model calls no tools; send its content as user text"
    if len(place) == 3 and place[2] == "type" and isinstance(given, str):  # only items of `input` have a type
        if given in ("input_text", "input_image", "input_video", "input_file"):
            return f"a part of the type {short(given)} stands in the content of a message; send {_holding(given, d)}"
        return f"an item of the type {short(given)} is not known here; {PART_TYPES[d.path].get(given, f'send {d.a_message}')}"
    if len(place) == 3 and place[2] == "role" and error["type"] == "missing" and isinstance(given, Mapping):
        kind = given.get("type")
        if isinstance(kind, str) and kind in PART_TYPES[d.path]:
            return f"is missing: a part of the type {short(kind)} stands in the content of a message; send {_holding(kind, d)}"
        return f"is missing; send {d.a_message}"
    if len(place) == 3 and place[2] == "content" and error["type"] == "missing" and isinstance(given, Mapping):
        for name in given:
            if isinstance(name, str) and name in REMEDIES[d.path]["message"]:
                raise refused((*place[:2], name), REMEDIES[d.path]["message"][name])
    if len(place) == 2 and error["type"] != "missing":
        return f"{_problem(error, place)}; send {d.a_message}"
    return None


def _holding(kind: str, d: Dialect) -> str:
    """A message with a part of this type."""
    part = {"image": d.a_picture, "video": d.a_video, "file": d.an_upload}
    return f'{{"role": "user", "content": [{next((part[word] for word in part if word in kind), d.a_text)}]}}'


def _of_a_part(error: Mapping[str, Any], place: Sequence[str | int], tags: Sequence[str], d: Dialect) -> str | None:
    """About a part of a message's content."""
    if place[:1] != [d.conversation] or len(place) < 4 or place[2] != "content":
        return None
    given = error.get("input")
    if len(place) == 4 and error["type"] in _UNIONS:
        kind = given.get("type") if isinstance(given, Mapping) else None
        if not isinstance(kind, str):
            return f'expected a part, an object with a "type", not {shape_of(given)}; send {d.part_types}, such as {d.a_text}'
        return f"a part of the type {short(kind)} is not known here; {PART_TYPES[d.path].get(kind, f'send {d.part_types}')}"
    kinds = [tag for tag in tags if tag not in ("text", "list", "object")] or ["text"]
    part = kinds[0]
    inside = f" (in a part of the type {short(part)})"
    return f"{_problem(error, place)}{inside}; {_instead(error, place, part, d)}"


def _instead(error: Mapping[str, Any], place: Sequence[str | int], kind: str, d: Dialect) -> str:
    """What to send for a part of this type that has something wrong in it."""
    given, field = error.get("input"), place[-1]
    beside = given if error["type"] == "missing" and isinstance(given, Mapping) else {}
    if kind in ("image_url", "video_url", "input_image", "input_video") and "file_id" in beside:
        return f"an upload is {d.an_upload}"
    if field in ("url", "video_url") and isinstance(given, list):
        return f"a video is one address, {d.a_video}; frames are pictures, one part each: {d.a_picture}"
    if "file_data" in beside or "file_url" in beside:
        return REMEDIES[d.path]["part"]["file_data"]
    return PART_TYPES[d.path][kind]


def _example(place: Sequence[str | int], d: Dialect, model: str) -> str | None:
    if not place:
        return None
    if place[0] == "model":
        return f'{{"model": "{model}"}}'
    if place[0] == d.conversation:
        return d.a_conversation
    if place[0] == "response_format" and len(place) > 1:
        return CHAT.a_schema
    if place[0] == "text" and len(place) > 1:
        return RESPONSES.a_schema
    return _EXAMPLES.get(str(place[0]))


def _is_tag(part: Any) -> bool:
    """Tags of unions stand in brackets, see `chat_schema.tag_of_part`; they are no part of the path that was sent."""
    return isinstance(part, str) and part.startswith("(")
