"""Each message speaks of its own route: what it tells a client to send is sent here, and taken."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from helpers_serve import MEDIA, Server, data_url
from smolvlm.serve.api.chat_schema import ChatRequest
from smolvlm.serve.api.remedies import FIXED, REMEDIES
from smolvlm.serve.api.responses_schema import ResponsesRequest

CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
ROUTES = (CHAT, RESPONSES)
FIELDS = {CHAT: set(ChatRequest.model_fields), RESPONSES: set(ResponsesRequest.model_fields)}
LIMIT = {CHAT: "max_tokens", RESPONSES: "max_output_tokens"}
TALK = {CHAT: "messages", RESPONSES: "input"}
TEXT = {CHAT: {"type": "text", "text": "Hi."}, RESPONSES: {"type": "input_text", "text": "Hi."}}
LETTER = {"type": "object", "properties": {"a": {"enum": ["x"]}}, "required": ["a"], "additionalProperties": False}
_NAME = re.compile(r"(?<![\w\"/.-])[a-z]+(?:_[a-z]+)+(?![\w\"/-])(?!\.\w)")  # names with an underscore, outside of examples


def ask(server: Server, route: str, body: dict[str, Any]) -> httpx.Response:
    talk = {TALK[route]: [{"role": "user", "content": "Hi."}]}
    return httpx.post(server.url + route, json={"model": "nano", LIMIT[route]: 40} | talk | body, timeout=60)


def refused(server: Server, route: str, body: dict[str, Any], param: str) -> str:
    """The message of a refusal that names `param`."""
    response = ask(server, route, body)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, param), error
    assert param in error["message"]
    return str(error["message"])


def talk(route: str, *parts: Any) -> dict[str, Any]:
    return {TALK[route]: [{"role": "user", "content": list(parts)}]}


def examples(message: str) -> Iterator[Any]:
    """Every JSON object in a message; what the client puts in is a number here."""
    text = re.sub(r'(?<!")\.\.\.(?!")', "0", message)
    at = 0
    while (at := text.find("{", at)) >= 0:
        made, at = json.JSONDecoder().raw_decode(text, at)
        yield made


def filled(value: Any, upload: str) -> Any:
    """An example with a real picture, clip, upload and schema in the places of dots."""
    if isinstance(value, list):
        return [filled(item, upload) for item in value]
    if isinstance(value, dict):
        return {key: LETTER if key == "schema" else "Hi." if item == 0 else filled(item, upload) for key, item in value.items()}
    media = {"data:image/png;base64,...": data_url("sign.png"), "data:video/mp4;base64,...": data_url("clip.mp4"), "file-...": upload}
    return media.get(value, value) if isinstance(value, str) else value


def obey(server: Server, route: str, message: str, upload: str, obeyed: list[Any] | None = None) -> int:
    """Send every example of a message and every name that it tells to send; how many there were. `obeyed`: not again."""
    count = 0
    for example in examples(message):
        if obeyed is not None:
            if example in obeyed:
                continue
            obeyed.append(example)
        body = filled(example, upload)
        if "role" in body:
            body = {TALK[route]: [body]}
        elif "type" in body:
            body = talk(route, TEXT[route], body)
        response = ask(server, route, body)
        assert response.status_code == 200, (message, response.text)
        assert not [text for text in response.json().get("warnings", []) if "changed nothing" in text], (message, response.text)
        count += 1
    sent = message.partition(": ")[2]
    for other in ROUTES:
        if other != route:
            sent = re.sub(rf"use {re.escape(other)}, which takes \w+", "", sent)
            assert other not in sent.partition("leave it out")[0], message
    known = FIELDS[CHAT] | FIELDS[RESPONSES]
    for name in set(_NAME.findall(re.sub(r"\{.*\}", "", sent))) & known:
        assert name in FIELDS[route], f"{route} has no {name}: {message}"
        count += 1
    return count


@pytest.fixture(scope="module")
def upload(server: Server) -> str:
    made = httpx.post(f"{server.url}/v1/files", files={"file": (MEDIA / "sign.png").open("rb")})
    return str(made.json()["id"])


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.slow
def test_remedies_at_the_top_lead_to_an_answer(server: Server, route: str, upload: str) -> None:
    obeyed: list[Any] = []
    names = sum(
        obey(server, route, refused(server, route, {name: [1]}, name), upload, obeyed)
        for name in REMEDIES[route]["top"]
        if name not in FIELDS[route]
    )
    assert len(obeyed) >= 8
    assert names > len(obeyed)
    for name, (nothing, _) in FIXED.items():
        assert ask(server, route, {name: nothing}).status_code == 200
        obey(server, route, refused(server, route, {name: False if nothing is True else 7}, name), upload)


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.slow
def test_remedies_further_in_lead_to_an_answer(server: Server, route: str, upload: str) -> None:
    own, obeyed = REMEDIES[route], []
    for name in own["message"]:
        if (route, name) != (CHAT, "tool_calls"):  # its own sentence, see test_serve_shapes
            message = {"role": "user", "content": "Hi.", name: ["x"]}
            said = refused(server, route, {TALK[route]: [message]}, f"{TALK[route]}[0].{name}")
            obey(server, route, said, upload, obeyed)
    for name in own["part"]:
        if name != "text":
            said = refused(server, route, talk(route, TEXT[route] | {name: "x"}), f"{TALK[route]}[0].content[0].{name}")
            obey(server, route, said, upload, obeyed)
    assert len(obeyed) >= 4


@pytest.mark.parametrize(("name", "value"), [("json_schema", {"name": "a", "schema": LETTER}), ("type", "json_schema"), ("schema", LETTER)])
def test_a_schema_at_the_wrong_level_of_text_format(server: Server, upload: str, name: str, value: Any) -> None:
    where = {"format": {"type": "json_schema", name: value}} if name == "json_schema" else {name: value}
    path = f"text.format.{name}" if name == "json_schema" else f"text.{name}"
    assert obey(server, RESPONSES, refused(server, RESPONSES, {"text": where}, path), upload)


# A part that a client gets wrong, where the message puts it, words that say what came
def _wrong(route: str) -> dict[str, tuple[dict[str, Any], str, str]]:
    picture, video = ("image_url", "video_url") if route == CHAT else ("input_image", "input_video")
    inside = (lambda url: {"url": url}) if route == CHAT else (lambda url: url)
    inner = ".url" if route == CHAT else ""
    cases: dict[str, tuple[dict[str, Any], str, str]] = {
        "frames": ({"type": video, "video_url": inside(["a", "b"])}, f".video_url{inner}", "not a list"),
        "a file's content": (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,AAAA", "filename": "a.pdf"}}
            if route == CHAT
            else {"type": "input_file", "file_data": "data:application/pdf;base64,AAAA"},
            ".file.file_id" if route == CHAT else ".file_id",
            "missing",
        ),
        "an id as a picture's address": ({"type": picture, "image_url": inside("file-0123456789abcdef")}, "", "id of an upload"),
        "an id as a video's address": ({"type": video, "video_url": inside("file-0123456789abcdef")}, "", "id of an upload"),
        "a picture as a video": ({"type": video, "video_url": inside(data_url("sign.png"))}, "", "holds a picture"),
        "a video as a picture": ({"type": picture, "image_url": inside(data_url("clip.mp4"))}, "", "holds a video"),
        "nothing": ({"type": picture}, ".image_url" if route == CHAT else "", "missing" if route == CHAT else "needs an address"),
    }
    if route == CHAT:
        cases["an id beside the type"] = ({"type": "file", "file_id": "file-01234567"}, ".file", "missing")
        cases["an id beside a picture's type"] = ({"type": "image_url", "file_id": "file-01234567"}, ".image_url", "an upload is")
        cases["an id in a picture"] = ({"type": "image_url", "image_url": {"file_id": "file-01234567"}}, ".image_url.url", "an upload is")
        cases["no object"] = ({"type": "image_url", "url": "https://a.example/b.png"}, ".image_url", "missing")
        cases["the other API's"] = ({"type": "input_image", "image_url": "x"}, "", "'input_image' is not known")
    else:
        cases["an object"] = ({"type": "input_image", "image_url": {"url": "x"}}, ".image_url", "not an object with 'url'")
        cases["an address and an id"] = ({"type": "input_image", "image_url": "x", "file_id": "file-0"}, "", "send one of them")
        cases["the other API's"] = ({"type": "image_url", "image_url": {"url": "x"}}, "", "'image_url' is not known")
    return cases


WRONG = [(route, case) for route in ROUTES for case in _wrong(route)]


@pytest.mark.parametrize(("route", "case"), WRONG, ids=[f"{route[4:]}: {case}" for route, case in WRONG])
def test_a_part_that_is_wrong_is_told_what_to_send(server: Server, upload: str, route: str, case: str) -> None:
    part, place, words = _wrong(route)[case]
    message = refused(server, route, talk(route, TEXT[route], part), f"{TALK[route]}[0].content[1]{place}")
    assert words in message, message
    assert obey(server, route, message, upload) or "send one of them" in message


def test_a_part_outside_of_a_message(server: Server, upload: str) -> None:
    for route, part in ((RESPONSES, {"type": "input_image", "image_url": "x"}), (RESPONSES, TEXT[RESPONSES]), (CHAT, TEXT[CHAT])):
        field = "type" if route == RESPONSES else "role"
        message = refused(server, route, {TALK[route]: [part]}, f"{TALK[route]}[0].{field}")
        assert obey(server, route, message, upload) == 1


def test_messages_without_input(server: Server, upload: str) -> None:
    for route, given in ((RESPONSES, "messages"), (RESPONSES, "prompt"), (CHAT, "input"), (CHAT, "prompt"), (CHAT, "contents")):
        body = {"model": "nano", given: [{"role": "user", "content": "Hi."}]}
        error = httpx.post(server.url + route, json=body, timeout=60).json()["error"]
        assert error["param"] == given
        assert obey(server, route, error["message"], upload) >= 1


def test_options_of_an_upload_in_its_object(server: Server) -> None:
    made = httpx.post(f"{server.url}/v1/files", files={"file": (MEDIA / "clip.mp4").open("rb")}).json()["id"]

    def tokens(inside: dict[str, Any], beside: dict[str, Any]) -> int:
        response = ask(server, CHAT, talk(CHAT, {"type": "file", "file": {"file_id": made} | inside} | beside, TEXT[CHAT]))
        assert "changed nothing" not in response.text, response.text
        return int(response.json()["usage"]["prompt_tokens"])

    for options in ({"max_frames": 2}, {"fps": 2}, {"start": 0.5, "end": 1.0}, {"media_kind": "video", "max_frames": 3}):
        assert tokens(options, {}) == tokens({}, options) != tokens({}, {}), options
    both = talk(CHAT, {"type": "file", "file": {"file_id": made, "fps": 1}, "fps": 2}, TEXT[CHAT])
    assert "fps=2" in refused(server, CHAT, both, "messages[0].content[0]")


# Accepted once, and without effect: what is said now
SILENT: dict[str, tuple[str, dict[str, Any], str]] = {
    "Ollama's format": (CHAT, {"format": "json"}, "format"),
    "sound": (CHAT, {"audio": {"voice": "x"}}, "audio"),
    "a stop string in JSON": (CHAT, {"stop": ["a"], "response_format": {"type": "json_object"}}, "stop"),
    "two limits": (CHAT, {"max_completion_tokens": 7}, "max_tokens"),
    "no prompt for the answer": (CHAT, {"add_generation_prompt": False}, "add_generation_prompt"),
    "special tokens": (CHAT, {"skip_special_tokens": False}, "skip_special_tokens"),
    "another spelling": (CHAT, {"maxTokens": 7}, "maxTokens"),
    "top_logprobs alone": (RESPONSES, {"top_logprobs": 2}, "top_logprobs"),
}


@pytest.mark.parametrize("case", SILENT)
def test_nothing_is_accepted_in_silence(server: Server, upload: str, case: str) -> None:
    route, body, param = SILENT[case]
    obey(server, route, refused(server, route, body, param), upload)


@pytest.mark.parametrize("route", ROUTES)
def test_harmless_is_harmless_at_its_own_level_only(server: Server, route: str) -> None:
    """`id` of a message that an answer had is nothing to speak of; at the top nobody knows it."""
    turn = {"role": "user", "content": "Hi.", "id": "msg_1", "annotations": [1], "refusal": "no", "status": "completed"}
    answer = ask(server, route, {TALK[route]: [turn], "id": "x", "filename": "y", "metadata": {"a": "b"}}).json()
    named = [text for text in answer["warnings"] if text.endswith("changed nothing.")]
    assert [text.partition(":")[0] for text in named] == ["id", "filename"]


def test_a_near_miss_is_named(server: Server) -> None:
    assert "did you mean temperature?" in ask(server, CHAT, {"temprature": 1}).text
    part = {"type": "image_url", "image_url": {"url": data_url("sign.png"), "fps": 2}}
    assert "fps: this field is for a video and changed nothing." in ask(server, CHAT, talk(CHAT, part, TEXT[CHAT])).text


@pytest.mark.parametrize(
    ("route", "field", "schema"),
    [
        (CHAT, "max_tokens", {"response_format": {"type": "json_schema", "json_schema": {"schema": LETTER}}}),
        (CHAT, "max_completion_tokens", {"response_format": {"type": "json_schema", "json_schema": {"schema": LETTER}}}),
        (RESPONSES, "max_output_tokens", {"text": {"format": {"type": "json_schema", "name": "a", "schema": LETTER}}}),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_limit_is_called_as_its_client_called_it(server: Server, route: str, field: str, schema: Any, stream: bool) -> None:
    body = {"model": "nano", TALK[route]: "Hi." if route == RESPONSES else [{"role": "user", "content": "Hi."}]}
    response = httpx.post(server.url + route, json=body | schema | {field: 1, "stream": stream}, timeout=60)
    error = response.json()["error"]
    assert (response.status_code, error["param"]) == (400, field)
    assert f"raise {field}" in error["message"]
    assert "max_new_tokens" not in error["message"]
