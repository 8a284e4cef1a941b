"""Bodies with a wrong type at every field: each is refused in our own words, by the name of the field, on every route."""

from __future__ import annotations

import copy
import gzip
import json
import re
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from pydantic_core import core_schema

from helpers_serve import MEDIA, Server, data_url

CHAT, RESPONSES, FILES = "/v1/chat/completions", "/v1/responses", "/v1/files"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
PICTURE = {"url": data_url("sign.png"), "detail": "low", "tone_map": "off", "background": "white"}
OPTIONS = {"fps": 1.0, "max_frames": 2, "start": 0.0, "end": 1.0, "sampling": "time", "tone_map": "off", "background": "white"}
SHARED = {
    "model": "nano",
    "temperature": 0.5,
    "top_p": 0.5,
    "stream": False,
    "user": "u",
    "seed": 1,
    "top_k": 1,
    "min_p": 0.1,
    "repetition_penalty": 1.1,
    "no_repeat_ngram_size": 2,
    "loop_guard": True,
    "ignore_eos": False,
    "tools": [],
    "top_logprobs": 1,
}
# A body of each route in which every field has a value; values that are swapped for others one by one.
WHOLE: dict[str, dict[str, Any]] = {
    CHAT: SHARED
    | {
        "messages": [
            {"role": "system", "content": "Be brief.", "name": "n", "tool_calls": []},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Hi."},
                    {"type": "image_url", "image_url": PICTURE, "detail": "low"},
                    {"type": "video_url", "video_url": {"url": data_url("clip.mp4")} | OPTIONS},
                    {"type": "file", "file": {"file_id": "file-x"} | OPTIONS, "media_kind": "auto", "detail": "low"},
                ],
            },
        ],
        "max_tokens": 4,
        "max_completion_tokens": 4,
        "n": 1,
        "stop": [],
        "stream_options": {"include_usage": True},
        "logprobs": True,
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "functions": [],
        "logit_bias": {},
        "modalities": ["text"],
        "response_format": {"type": "json_schema", "json_schema": {"name": "a", "description": "d", "schema": SCHEMA, "strict": True}},
    },
    RESPONSES: SHARED
    | {
        "input": [
            {"type": "message", "role": "system", "content": "Be brief."},
            {
                "role": "user",
                "content": [
                    {"type": "input_text", "text": "Hi."},
                    {"type": "input_image", "image_url": data_url("sign.png"), "detail": "low", "tone_map": "off"},
                    {"type": "input_video", "video_url": data_url("clip.mp4")} | OPTIONS,
                    {"type": "input_file", "file_id": "file-x", "detail": "low"} | OPTIONS,
                ],
            },
        ],
        "instructions": "Be brief.",
        "max_output_tokens": 4,
        "include": ["message.output_text.logprobs"],
        "metadata": {"a": "b"},
        "text": {"format": {"type": "json_schema", "name": "a", "schema": SCHEMA, "strict": True}},
        "previous_response_id": None,
        "background": False,
    },
}
ODD: tuple[Any, ...] = (5, -1.5, 10**30, True, "x", "", [], [5], {}, {"x": 5}, None, "\ud800")
# The validating library's own words, and how it writes places. Its error types are taken from the library itself.
WORDS = re.compile(
    r"pydantic|valid (string|integer|number|boolean|list|dict\w*|tuple|object)|input should|field required|extra inputs|"
    r"should have at (least|most)|unable to|discriminator|loc\b|union_|tagged|\(text\)|\(list\)|\(object\)|\[key\]|model_attributes|"
    + "|".join(re.escape(name) for name in core_schema.ErrorType.__args__ if "_" in name),
    re.IGNORECASE,
)


def places(value: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Every field in a body: its path, what holds it, and its key there. What a user names himself is left out."""
    for key, item in value.items() if isinstance(value, dict) else enumerate(value):
        here = f"{path}[{key}]" if isinstance(key, int) else f"{path}.{key}".lstrip(".")
        yield here, value, key
        if isinstance(item, dict | list) and key not in ("schema", "metadata", "logit_bias"):
            yield from places(item, here)


def odd_bodies(route: str) -> Iterator[tuple[str, Any, dict[str, Any]]]:
    """Path, odd value, and the body with it."""
    for path, _, _ in places(WHOLE[route]):
        for odd in ODD:
            body = copy.deepcopy(WHOLE[route])
            holder, key = next((holder, key) for here, holder, key in places(body) if here == path)
            if type(holder[key]) is type(odd) and odd not in ("", "\ud800"):
                continue
            holder[key] = odd
            yield path, odd, body


def send(client: httpx.Client, route: str, body: Any) -> httpx.Response:
    return client.post(route, content=json.dumps(body).encode(), headers={"Content-Type": "application/json"})


@pytest.mark.parametrize("route", [CHAT, RESPONSES])
@pytest.mark.slow
def test_a_wrong_type_at_each_field(server: Server, route: str) -> None:
    """Hundreds of bodies a route. Whatever is refused names the field, or one that holds it or stands in it."""
    seen: dict[str, int] = {}
    with httpx.Client(base_url=server.url, timeout=60) as client:
        for path, odd, body in odd_bodies(route):
            if odd == "x" and path in ("input", "input[1].content", "messages[1].content"):  # what they may be
                continue
            response = send(client, route, body)
            error = response.json()["error"]  # file-x is no upload: nothing is ever answered
            case = f"{path}={odd!r}: {error}"
            assert response.status_code in (400, 404, 413), case
            assert not WORDS.search(error["message"]), case
            assert "\n" not in error["message"], case
            assert error["message"].endswith("."), case
            seen[path] = seen.get(path, 0) + (error["param"] is not None and related(error["param"], path))
            if odd in (5, "x") or isinstance(odd, list):
                assert error["param"] is not None, case
                assert error["param"] in error["message"], case
    assert sum(seen.values()) > 300
    assert [path for path, count in seen.items() if not count] == []


def related(param: str, path: str) -> bool:
    return param.startswith(path) or path.startswith(param)


BODIES: dict[str, tuple[bytes, dict[str, str], int, tuple[str, ...]]] = {
    "nothing": (b"", {}, 400, ("empty", '"model"')),
    "a list": (b"[]", {}, 400, ("list", "object")),
    "a text": (b'"hi"', {}, 400, ("'hi'", "object")),
    "null": (b"null", {}, 400, ("null", "object")),
    "a number": (b"3", {}, 400, ("number 3", "object")),
    "no JSON": (b"{", {}, 400, ("not valid JSON",)),
    "half a character": (b'{"model": "\xff"}', {}, 400, ("UTF-8",)),
    "gzip": (gzip.compress(b"{}"), {"Content-Encoding": "gzip"}, 415, ("'gzip'", "without compression")),
    "brotli": (b"{}", {"Content-Encoding": "br"}, 415, ("'br'",)),
    "a form": (b"a=b", {"Content-Type": "application/x-www-form-urlencoded"}, 415, ("application/json",)),
    "no type": (b"{}", {"Content-Type": ""}, 415, ("application/json",)),
}


@pytest.mark.parametrize("route", [CHAT, RESPONSES])
@pytest.mark.parametrize("case", BODIES)
def test_a_body_that_is_no_object(server: Server, route: str, case: str) -> None:
    content, headers, status, words = BODIES[case]
    response = httpx.post(server.url + route, content=content, headers={"Content-Type": "application/json"} | headers)
    message = response.json()["error"]["message"]
    assert response.status_code == status, message
    assert all(word in message for word in words), message
    assert not WORDS.search(message)


PNG = (MEDIA / "sign.png").read_bytes()
UPLOADS: dict[str, tuple[dict[str, Any], int, str]] = {
    "JSON": ({"json": {"file": "x", "purpose": "vision"}}, 415, "application/json"),
    "raw": ({"content": PNG, "headers": {"Content-Type": "image/png"}}, 415, "image/png"),
    "raw without a type": ({"content": PNG}, 415, "without a Content-Type"),
    "another name": ({"files": {"image": PNG}}, 400, "file is missing"),
    "a name for content": ({"data": {"file": "photo.png"}, "files": {"x": b"y"}}, 400, "'photo.png'"),
    "a long purpose": ({"data": {"purpose": "x" * 100}, "files": {"file": PNG}}, 400, "purpose: expected at most 64 characters"),
    "a file as purpose": ({"files": {"file": PNG, "purpose": ("p", b"x")}}, 400, "purpose"),
    "two files": ({"files": [("file", PNG), ("file", PNG)]}, 400, "2"),
    "no form": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 400, "form"),
    "no boundary": ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, 400, "boundary"),
    "nothing in it": ({"files": {"file": ("a.png", b"")}}, 400, "empty"),
}


@pytest.mark.parametrize("case", UPLOADS)
def test_an_upload_that_is_none(server: Server, case: str) -> None:
    sent, status, words = UPLOADS[case]
    response = httpx.post(server.url + FILES, **sent)
    message = response.json()["error"]["message"]
    assert response.status_code == status, message
    assert words in message
    assert not WORDS.search(message)
    if case not in ("two files", "nothing in it"):
        assert "curl -F file=@" in message


def test_a_field_of_an_upload_that_nobody_knows(server: Server) -> None:
    made = httpx.post(server.url + FILES, files={"file": PNG}, data={"purpose": "vision", "expires_after[seconds]": "60"}).json()
    assert made["warnings"] == ["expires_after[seconds]: this field is unknown here and changed nothing."]


ADDRESSES = {
    "GET /chat/completions": "/v1/chat/completions",
    "POST /v1/v1/chat/completions": "ends in /v1",
    "POST /v1/chat/completions/": "/v1/chat/completions,",
    "POST /openai/deployments/nano/chat/completions": "/v1/chat/completions",
    "POST /responses": "/v1/responses",
    "GET /models": "/v1/models",
    "POST /api/chat": "POST /v1/chat/completions",
    "POST /v1/completions": "POST /v1/chat/completions",
    "POST /v1/messages": "POST /v1/chat/completions",
    "POST /v1/embeddings": "no embeddings",
    "GET /v1/responses/resp_1": "nothing is stored",
    "GET /nowhere": "'/nowhere'",
}


@pytest.mark.parametrize("case", ADDRESSES)
def test_an_address_of_another_server(server: Server, case: str) -> None:
    method, path = case.split()
    response = httpx.request(method, server.url + path, json={})
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (404, "not_found")
    assert ADDRESSES[case] in error["message"]


def test_another_method(server: Server) -> None:
    for method, path, words in (
        ("GET", CHAT, "takes POST"),
        ("PUT", FILES, "takes GET and POST"),
        ("PATCH", f"{FILES}/file-x", "takes DELETE and GET"),
    ):
        response = httpx.request(method, server.url + path)
        assert (response.status_code, response.json()["error"]["code"]) == (405, "method_not_allowed")
        assert words in response.json()["error"]["message"]


def test_head_is_get_without_a_body(server: Server) -> None:
    for path, status in (
        ("/", 200),
        ("/health", 200),
        ("/ready", 200),
        ("/v1/models", 200),
        ("/docs", 200),
        ("/nowhere", 404),
        (CHAT, 405),
    ):
        head, get = httpx.head(server.url + path), httpx.get(server.url + path)
        assert (head.status_code, head.content) == (status, b"")
        assert head.headers["content-type"] == get.headers["content-type"]


def test_a_list_of_uploads_in_pages(server: Server) -> None:
    made = [httpx.post(server.url + FILES, files={"file": PNG}, data={"purpose": f"pages-{i % 2}"}).json()["id"] for i in range(5)]
    client = server.client()
    mine = [one.id for one in client.files.list(purpose="pages-0", limit=2, order="asc")]  # goes on while there is more
    assert sorted(mine) == sorted(made[0::2])
    assert len(httpx.get(f"{server.url}{FILES}?purpose=pages-1&limit=1").json()["data"]) == 1
    for query, param in (("limit=x", "limit"), ("limit=0", "limit"), ("order=up", "order"), ("after=file-x", "after")):
        response = httpx.get(f"{server.url}{FILES}?{query}")
        error = response.json()["error"]
        assert (response.status_code, error["param"]) == (400, param)
        assert not WORDS.search(error["message"])
        assert "curl" not in error["message"]


def test_options_of_a_stream_of_responses(server: Server) -> None:
    body = {"model": "nano", "input": "Hi.", "max_output_tokens": 2, "stream": True}
    taken = httpx.post(server.url + RESPONSES, json=body | {"stream_options": {"include_obfuscation": False}}, timeout=60)
    assert taken.status_code == 200
    assert "changed nothing" not in taken.text
    refused = httpx.post(server.url + RESPONSES, json=body | {"stream_options": {"include_usage": True}}, timeout=60)
    assert refused.json()["error"]["param"] == "stream_options.include_usage"
