"""Requests in shapes of other servers and clients: understood, or told by name what to send."""

from __future__ import annotations

import base64
import json
from typing import Any

import httpx
import pytest
from openai import OpenAI

from helpers_serve import MEDIA, Server, about, data_url, text
from smolvlm import SmolVLM

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
SIGN = {"type": "text", "text": "What does the sign say?"}
LETTER = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}


def bare(name: str, width: int = 0) -> str:
    encoded = base64.b64encode((MEDIA / name).read_bytes()).decode()
    return "\n".join(encoded[i : i + width] for i in range(0, len(encoded), width)) if width else encoded


def image(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url, **more}


def video(url: Any, **more: Any) -> dict[str, Any]:
    return {"type": "video_url", "video_url": url, **more}


def named_in(made: dict[str, Any]) -> list[str]:
    """Warnings about fields; nano adds one about what it knows."""
    return [text for text in made.get("warnings", []) if text.endswith("changed nothing.")]


def user(*parts: Any) -> list[Any]:
    return [{"role": "user", "content": list(parts)}]


def post(server: Server, path: str, body: dict[str, Any]) -> httpx.Response:
    limit = {"max_output_tokens": 12} if path == RESPONSES else {"max_tokens": 12}
    return httpx.post(server.url + path, json={"model": "nano"} | limit | body, timeout=60)


# name: the parts, the parameter of the error, words that its message has
REFUSED_PARTS: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    "sound": (({"type": "input_audio", "input_audio": {}},), "messages[0].content[0]", ("'input_audio'", "sound")),
    "the other API's picture": (({"type": "input_image"},), "messages[0].content[0]", ("'input_image'", "image_url")),
    "a bare picture": ((SIGN, {"type": "image", "url": "x"}), "messages[0].content[1]", ("'image'", "image_url")),
    "an unheard type": (({"type": "hologram"},), "messages[0].content[0]", ("'hologram'", "image_url", "video_url")),
    "no type": (({"text": "hi"},), "messages[0].content[0]", ('"type"', "'text'")),
    "text as a part": (("hi",), "messages[0].content[0]", ('"type"', "text")),
    "frames as a list": (({"type": "video", "video": []},), "messages[0].content[0]", ("'video'", "video_url", "image_url")),
    "frames in a data URL": ((video("data:video/jpeg;base64,AAAA,BBBB"),), "messages[0].content[0]", ("JPEG", "image_url")),
    "a number as address": ((image(5),), "messages[0].content[0].image_url", ("url", "number")),
    "an address that is a number": ((image({"url": 5}),), "messages[0].content[0].image_url.url", ("'image_url'", "string")),
    "no address": ((image({}),), "messages[0].content[0].image_url.url", ("'image_url'", "missing")),
    "a video as a picture": ((image(data_url("clip.mp4")),), "messages[0].content[0]", ("video", "video_url")),
    "a bare video as a picture": ((image(bare("clip.mp4")),), "messages[0].content[0]", ("video", "video_url")),
    "two numbers of frames": (
        (video({"url": data_url("clip.mp4"), "max_frames": 2}, max_frames=3),),
        "messages[0].content[0]",
        ("max_frames=2", "max_frames=3"),
    ),
}


@pytest.mark.parametrize("case", REFUSED_PARTS)
def test_a_part_that_does_not_fit_is_named(server: Server, case: str) -> None:
    parts, param, words = REFUSED_PARTS[case]
    response = post(server, CHAT, {"messages": user(*parts)})
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert all(word in error["message"] for word in words), error


REFUSED_FIELDS: dict[str, tuple[str, dict[str, Any], str, str]] = {
    "tools": (CHAT, {"tools": [TOOL]}, "tools", "calls no tools"),
    "a forced tool": (CHAT, {"tool_choice": "required"}, "tool_choice", "none"),
    "functions": (CHAT, {"functions": [{"name": "f"}]}, "functions", "calls no functions"),
    "logit_bias": (CHAT, {"logit_bias": {"1": 5}}, "logit_bias", "not supported"),
    "sampling of a video": (CHAT, {"max_frames": 4}, "max_frames", "part"),
    "temperature in a message": (CHAT, {"messages": [text("x")[0] | {"temperature": 1}]}, "messages[0].temperature", "top level"),
    "vLLM's schema": (CHAT, {"guided_json": LETTER}, "guided_json", "response_format"),
    "llama.cpp's grammar": (CHAT, {"grammar": "root ::= x"}, "grammar", "response_format"),
    "extra_body": (CHAT, {"extra_body": {"top_k": 1}}, "extra_body", "top level"),
    "template options": (CHAT, {"chat_template_kwargs": {"x": 1}}, "chat_template_kwargs", "template"),
    "the other API's input": (CHAT, {"input": "x"}, "input", "messages"),
    "a schema and text": (CHAT, {"response_format": {"type": "text", "schema": LETTER}}, "response_format", "json_schema"),
    "the other API's limit": (RESPONSES, {"input": "x", "max_tokens": 3}, "max_tokens", "max_output_tokens"),
    "the other API's format": (RESPONSES, {"input": "x", "response_format": {"type": "json_object"}}, "response_format", "text.format"),
    "the other API's part": (RESPONSES, {"input": user(SIGN)}, "input[0].content[0]", "input_text"),
    "a call in the history": (RESPONSES, {"input": [{"type": "function_call"}]}, "input[0].type", "no tools"),
    "stop": (RESPONSES, {"input": "x", "stop": "a"}, "stop", "chat/completions"),
}


@pytest.mark.parametrize("case", REFUSED_FIELDS)
def test_a_field_that_would_change_the_answer_is_refused_by_name(server: Server, case: str) -> None:
    path, body, param, word = REFUSED_FIELDS[case]
    response = post(server, path, ({"messages": text("x")} if path == CHAT else {}) | body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert word in error["message"], error


def test_a_history_with_calls_of_tools(server: Server) -> None:
    called = {"role": "assistant", "content": None, "tool_calls": [TOOL | {"id": "c"}]}
    for turns, param in (
        ([*text("x"), called, *text("y")], "messages[1].tool_calls"),
        ([*text("x"), {"role": "tool", "tool_call_id": "c", "content": "42"}], "messages[1].role"),
    ):
        response = post(server, CHAT, {"messages": turns})
        assert (response.status_code, response.json()["error"]["param"]) == (400, param), response.text
        assert "calls no tools" in response.json()["error"]["message"]


@pytest.mark.parametrize(
    "field",
    [
        {"tools": []},
        {"tools": [TOOL], "tool_choice": "none"},
        {"tool_choice": "auto"},
        {"functions": []},
        {"logit_bias": {}},
        {"parallel_tool_calls": False},
        {"reasoning_effort": "low"},
        {"guided_json": None},
        {"echo": False},
    ],
    ids=str,
)
def test_harmless_fields_change_nothing(server: Server, nano: SmolVLM, field: dict[str, Any]) -> None:
    made = post(server, CHAT, {"messages": about("sign.png", SIGN["text"])} | field).json()
    assert made["choices"][0]["message"]["content"] == nano.ask(MEDIA / "sign.png", SIGN["text"], max_new_tokens=12).text
    assert named_in(made) == []


def test_an_unknown_field_is_named_in_the_answer(server: Server) -> None:
    part = SIGN | {"cache_control": {"type": "ephemeral"}, "emphasis": 3}
    body = {"messages": user(part), "zeal": 9}
    named = [
        "zeal: this field is unknown here and changed nothing.",
        "messages[0].content[0].emphasis: this field is unknown here and changed nothing.",
    ]
    assert named_in(post(server, CHAT, body).json()) == named
    lines = post(server, CHAT, body | {"stream": True}).text.splitlines()
    chunks = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    assert [named_in(chunk) for chunk in chunks] == [named] + [[]] * (len(chunks) - 1)
    assert named_in(post(server, RESPONSES, {"input": "x", "zeal": 9}).json()) == named[:1]


@pytest.mark.parametrize("url", [bare("sign.png"), bare("sign.png", 76), data_url("sign.png").replace("image/png", "")])
def test_base64_of_a_picture_without_its_type(client: OpenAI, nano: SmolVLM, url: str) -> None:
    expected = nano.ask(MEDIA / "sign.png", SIGN["text"]).text
    for form in (url, {"url": url}):
        messages: Any = user(image(form), SIGN)
        assert client.chat.completions.create(model="nano", messages=messages).choices[0].message.content == expected


def test_a_path_is_no_base64(server: Server) -> None:
    for path in ("/etc/passwd", "/" + "a" * 63, "/9j/4AAQ"):
        assert post(server, CHAT, {"messages": user(image(path), SIGN)}).status_code == 400


def test_options_beside_the_address_or_in_its_object(client: OpenAI, server: Server, nano: SmolVLM) -> None:
    ask = {"type": "text", "text": "What happens in this video?"}
    expected = nano.ask(MEDIA / "clip.mp4", ask["text"], max_frames=2)
    for part in (video({"url": data_url("clip.mp4"), "max_frames": 2}), video(data_url("clip.mp4"), max_frames=2)):
        messages: Any = user(part, ask)
        made = client.chat.completions.create(model="nano", messages=messages)
        assert made.usage is not None
        assert (made.usage.prompt_tokens, made.choices[0].message.content) == (expected.usage.prompt_tokens, expected.text)
    assert post(server, CHAT, {"messages": user(image(data_url("sign.png"), detail="low"), SIGN)}).status_code == 200


def test_a_schema_beside_its_type(server: Server) -> None:
    for kind in ("json_object", "json_schema"):
        made = post(server, CHAT, {"messages": text("x"), "response_format": {"type": kind, "schema": LETTER}}).json()
        assert json.loads(made["choices"][0]["message"]["content"]) == {"a": "x"}


@pytest.mark.parametrize("header", [{}, {"content-type": "text/plain"}, {"content-type": "application/x-www-form-urlencoded"}])
def test_a_body_without_the_json_header(server: Server, header: dict[str, str]) -> None:
    body = json.dumps({"model": "nano", "messages": text("x")})
    response = httpx.post(server.url + CHAT, content=body, headers=header)
    assert response.status_code == 415
    assert "Content-Type: application/json" in response.json()["error"]["message"]
