"""The two APIs by their own names for what both have, so that a message tells a client what its own route takes."""

from __future__ import annotations

import json
from dataclasses import dataclass

_PICTURE, _CLIP = "data:image/png;base64,...", "data:video/mp4;base64,..."


@dataclass(frozen=True)
class Dialect:
    """One API. Examples are JSON that its route takes once the dots are filled in."""

    path: str
    conversation: str  # the field with the messages
    limit: str  # the field with the most tokens of an answer; of a request: the one that its client sent
    schema: str  # where a schema for the answer stands
    part_types: str
    a_conversation: str
    a_message: str
    a_system_message: str
    a_schema: str
    an_enum: str
    a_text: str
    a_picture: str
    a_video: str
    an_upload: str


def _json(value: object) -> str:
    """As `json.dumps`; a bare `...` stands for what the client puts there."""
    return json.dumps(value).replace('"..."', "...")


_ANSWER = {"type": "object", "properties": "..."}
_YES_NO = {"enum": ["yes", "no"]}

CHAT = Dialect(
    path="/v1/chat/completions",
    conversation="messages",
    limit="max_tokens",
    schema="response_format",
    part_types="text, image_url, video_url or file",
    a_conversation=_json({"messages": [{"role": "user", "content": "What is this?"}]}),
    a_message=_json({"role": "user", "content": "What is this?"}),
    a_system_message=_json({"messages": [{"role": "system", "content": "..."}, {"role": "user", "content": "What is this?"}]}),
    a_schema=_json({"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": _ANSWER}}}),
    an_enum=_json({"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": _YES_NO}}}),
    a_text=_json({"type": "text", "text": "What is this?"}),
    a_picture=_json({"type": "image_url", "image_url": {"url": _PICTURE}}),
    a_video=_json({"type": "video_url", "video_url": {"url": _CLIP}}),
    an_upload=_json({"type": "file", "file": {"file_id": "file-..."}}),
)
RESPONSES = Dialect(
    path="/v1/responses",
    conversation="input",
    limit="max_output_tokens",
    schema="text.format",
    part_types="input_text, input_image, input_video or input_file",
    a_conversation=_json({"input": [{"role": "user", "content": "What is this?"}]}),
    a_message=_json({"role": "user", "content": "What is this?"}),
    a_system_message=_json({"instructions": "..."}),
    a_schema=_json({"text": {"format": {"type": "json_schema", "name": "answer", "schema": _ANSWER}}}),
    an_enum=_json({"text": {"format": {"type": "json_schema", "name": "answer", "schema": _YES_NO}}}),
    a_text=_json({"type": "input_text", "text": "What is this?"}),
    a_picture=_json({"type": "input_image", "image_url": _PICTURE}),
    a_video=_json({"type": "input_video", "video_url": _CLIP}),
    an_upload=_json({"type": "input_file", "file_id": "file-..."}),
)
DIALECTS = {dialect.path: dialect for dialect in (CHAT, RESPONSES)}
