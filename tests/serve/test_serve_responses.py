"""`/v1/responses` with the official client."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import openai
import pytest
from openai import OpenAI

from helpers_serve import MEDIA, data_url
from smolvlm import SmolVLM

DESCRIBE = "Describe this picture."


def picture(question: str) -> list[Any]:
    image = {"type": "input_image", "image_url": data_url("scene.png"), "detail": "auto"}
    return [{"role": "user", "content": [image, {"type": "input_text", "text": question}]}]


def test_text_and_instructions(client: OpenAI, nano: SmolVLM) -> None:
    made = client.responses.create(model="nano", input="What is a ring?", instructions="Be brief.", max_output_tokens=16)
    answer = nano.ask(None, "What is a ring?", system="Be brief.", max_new_tokens=16)
    assert made.output_text == answer.text
    assert (made.usage.input_tokens, made.usage.output_tokens) == (answer.usage.prompt_tokens, answer.usage.completion_tokens)
    assert made.status == ("incomplete" if answer.finish_reason == "length" else "completed")


def test_a_picture(client: OpenAI, nano: SmolVLM) -> None:
    made = client.responses.create(model="nano", input=picture(DESCRIBE), include=["message.output_text.logprobs"], top_logprobs=1)
    assert made.output_text == nano.ask(MEDIA / "scene.png", DESCRIBE).text
    tokens = [entry.token for entry in made.output[0].content[0].logprobs]
    assert "".join(tokens).removeprefix(" ") == made.output_text  # the first token's blank is no part of the text


def test_an_upload(client: OpenAI, nano: SmolVLM) -> None:
    uploaded = client.files.create(file=(MEDIA / "clip.mp4").open("rb"), purpose="vision")
    parts: list[Any] = [{"type": "input_file", "file_id": uploaded.id}, {"type": "input_text", "text": "What happens in this video?"}]
    made = client.responses.create(model="nano", input=[{"role": "user", "content": parts}])
    assert made.output_text == nano.ask(MEDIA / "clip.mp4", "What happens in this video?").text


def test_the_stream(client: OpenAI, nano: SmolVLM) -> None:
    with client.responses.stream(model="nano", input=picture(DESCRIBE)) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert [event.type for event in events][:4] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    assert [event.type for event in events][-4:] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    expected = nano.ask(MEDIA / "scene.png", DESCRIBE).text
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == expected
    assert final.output_text == expected


def test_a_schema(client: OpenAI) -> None:
    schema = {"type": "object", "properties": {"count": {"type": "integer"}}, "required": ["count"], "additionalProperties": False}
    wanted: Any = {"format": {"type": "json_schema", "name": "count", "schema": schema, "strict": True}}
    made = client.responses.create(model="nano", input=picture("How many things are there?"), text=wanted)
    jsonschema.validate(json.loads(made.output_text), schema)


def test_what_is_not_stored_is_refused(client: OpenAI) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.responses.create(model="nano", input="Go on.", previous_response_id="resp_0")
    assert caught.value.param == "previous_response_id"
