"""What is refused and how: OpenAI's error format everywhere, keys, quotas, a full queue, large bodies, slow clients."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import openai
import pytest

from helpers_serve import MEDIA, Server, about, serving, text
from smolvlm.cli.main import main

CHAT = "/v1/chat/completions"
JSON = {"content-type": "application/json"}
ENDLESS: dict[str, Any] = {"max_tokens": 1500, "extra_body": {"ignore_eos": True, "loop_guard": False}}


def error_of(response: httpx.Response, status: int, code: str | None) -> dict[str, Any]:
    """The error object, after a look at its form."""
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code, error
    assert error["message"].endswith((".", "?"))
    assert "\n" not in error["message"]
    assert "Traceback" not in error["message"]
    assert response.headers["x-request-id"].startswith("req-")
    return dict(error)


def picture(url: str) -> Any:
    return [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]


def fitting(schema: dict[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"schema": schema}}


BAD: dict[str, tuple[Any, str | None]] = {
    "no messages": ({}, "messages"),
    "empty messages": ({"messages": []}, "messages"),
    "a role": ({"messages": [{"role": "robot", "content": "x"}]}, "messages[0].role"),
    "a part": ({"messages": [{"role": "user", "content": [{"type": "audio"}]}]}, "messages[0].content"),
    "no content": ({"messages": [{"role": "user"}]}, "messages[0]"),
    "temperature": ({"messages": text("x"), "temperature": 3}, "temperature"),
    "temperature as text": ({"messages": text("x"), "temperature": "1"}, "temperature"),
    "max_tokens": ({"messages": text("x"), "max_tokens": 0}, "max_tokens"),
    "too many tokens": ({"messages": text("x"), "max_tokens": 10**6}, "max_tokens"),
    "n": ({"messages": text("x"), "n": 1000}, "n"),
    "top_logprobs": ({"messages": text("x"), "top_logprobs": 2}, "top_logprobs"),
    "tools": ({"messages": text("x"), "tools": [{"type": "function"}]}, "tools"),
    "stop": ({"messages": text("x"), "stop": [""]}, None),
    "no schema": ({"messages": text("x"), "response_format": {"type": "json_schema"}}, "response_format"),
    "a schema": ({"messages": text("x"), "response_format": fitting({"type": "x"})}, "response_format"),
    "half a character in a schema": ({"messages": text("x"), "response_format": fitting({"const": "\ud800"})}, "response_format"),
    "no room": ({"messages": text("x"), "max_tokens": 1, "response_format": {"type": "json_object"}}, "max_tokens"),
    "a path": ({"messages": picture("/etc/passwd")}, None),
    "a file address": ({"messages": picture("file:///etc/passwd")}, None),
    "an id as address": ({"messages": picture("file-0")}, None),
    "an address": ({"messages": picture("http://example.org/a")}, None),
    "no picture": ({"messages": picture("data:image/png;base64,AAAA")}, None),
    "too long": ({"messages": text("word " * 4000)}, "messages"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_requests_name_what_is_wrong(server: Server, case: str) -> None:
    body, param = BAD[case]
    response = httpx.post(server.url + CHAT, content=json.dumps({"model": "nano", **body}), headers=JSON)
    assert response.status_code == 400, response.text
    error = error_of(response, 400, response.json()["error"]["code"])
    assert error["type"] == "invalid_request_error"
    assert (error["param"] or "").startswith(param or ""), error


def test_other_errors_have_the_same_form(server: Server) -> None:
    get, post = httpx.get, httpx.post
    error_of(get(server.url + "/nowhere"), 404, "not_found")
    error_of(get(server.url + CHAT), 405, "method_not_allowed")
    error_of(post(server.url + CHAT, json={"model": "gpt-4", "messages": text("x")}), 404, "model_not_found")
    error_of(post(server.url + "/v1/responses", json={"model": "gpt-4", "input": "x"}), 404, "model_not_found")
    error_of(get(server.url + "/v1/files/file-" + "0" * 32), 404, "file_not_found")
    error_of(get(server.url + "/v1/files/..%2f..%2fetc"), 404, "not_found")
    error_of(post(server.url + CHAT, content="{", headers=JSON), 400, "invalid_json")
    nested = '{"model": "nano", "messages": ' + "[" * 100_000 + "]" * 100_000 + "}"
    assert post(server.url + CHAT, content=nested, headers=JSON).status_code == 400
    surrogate = '{"model": "nano", "messages": [{"role": "user", "content": "\\udfff"}]}'
    assert post(server.url + CHAT, content=surrogate, headers=JSON).status_code == 400
    error_of(
        post(server.url + CHAT, content='{"model": "\\ud800", "messages": [{"role": "user", "content": ""}]}', headers=JSON),
        404,
        "model_not_found",
    )
    assert post(server.url + "/v1/files", files={"file": ("a", b"")}).status_code == 400


def test_unknown_fields_are_ignored(server: Server) -> None:
    body = {"model": "nano", "messages": text("x"), "max_tokens": 1, "service_tier": "auto", "metadata": {"a": "b"}, "store": False}
    assert httpx.post(server.url + CHAT, json=body).status_code == 200


@pytest.fixture(scope="module")
def strict(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, dict[str, str]]]:
    """A server with keys and small limits, configured in all three ways: a flag, the environment and a file."""
    folder = tmp_path_factory.mktemp("strict")
    keys = {}
    for name in ("alice", "bob", "carol"):
        with pytest.MonkeyPatch.context() as patch, (folder / "key").open("w+") as out:
            patch.setattr("sys.stdout", out)
            assert main(["serve", "--new-key", name, "--keys-file", str(folder / "keys.json")]) == 0
            out.seek(0)
            keys[name] = out.read().strip()
    entries = json.loads((folder / "keys.json").read_text())
    entries["keys"][2] |= {"rate": 2, "concurrency": 1}
    (folder / "keys.json").write_text(json.dumps(entries))
    (folder / "serve.toml").write_text("max_waiting = 9\nmax_running = 1\nmax_body_bytes = 60000\nbody_timeout_s = 0.5\n")
    environ = {
        "SMOLVLM_SERVE_KEYS_FILE": str(folder / "keys.json"),
        "SMOLVLM_SERVE_MAX_WAITING": "5",
        "SMOLVLM_SERVE_HEAD_TIMEOUT_S": "0.5",
    }
    with serving(folder / "log", "--config", str(folder / "serve.toml"), "--max-waiting", "2", environ=environ) as server:
        server.key = keys["alice"]
        yield server, keys


def test_keys_are_hashed_and_needed(strict: tuple[Server, dict[str, str]]) -> None:
    server, keys = strict
    folder = server.log.parent
    assert all(key not in (folder / "keys.json").read_text() for key in keys.values())
    assert os.stat(folder / "keys.json").st_mode & 0o077 == 0 or os.name == "nt"
    assert main(["serve", "--new-key", "alice", "--keys-file", str(folder / "keys.json")]) == 2  # no second one of that name
    for headers in ({}, {"Authorization": "Bearer sk-wrong"}, {"Authorization": f"Basic {keys['alice']}"}):
        error_of(httpx.get(server.url + "/v1/models", headers=headers), 401, "invalid_api_key")
        error_of(httpx.post(server.url + CHAT, headers=headers, content=b"x" * 100), 401, "invalid_api_key")
    with pytest.raises(openai.AuthenticationError):
        server.client("sk-wrong").models.list()
    assert [m.id for m in server.client(keys["alice"]).models.list()] == ["nano"]
    assert httpx.get(server.url + "/health").status_code == 200


def test_files_belong_to_their_key(strict: tuple[Server, dict[str, str]]) -> None:
    server, keys = strict
    alice, bob = server.client(keys["alice"]), server.client(keys["bob"])
    mine = alice.files.create(file=(MEDIA / "scene.png").open("rb"), purpose="vision")
    assert [f.id for f in alice.files.list()] == [mine.id]
    assert list(bob.files.list()) == []
    with pytest.raises(openai.NotFoundError):
        bob.files.delete(mine.id)
    parts: list[Any] = [{"type": "file", "file": {"file_id": mine.id}}, {"type": "text", "text": "Describe this picture."}]
    with pytest.raises(openai.NotFoundError):
        bob.chat.completions.create(model="nano", messages=[{"role": "user", "content": parts}])


def test_a_full_queue_answers_429(strict: tuple[Server, dict[str, str]]) -> None:
    """One runs, two wait, the fourth is refused; when the first hangs up the next begins."""
    server, keys = strict
    client = server.client(keys["alice"])

    def endless(question: str) -> Any:
        return client.chat.completions.create(model="nano", messages=text(question), stream=True, **ENDLESS)

    with ThreadPoolExecutor(3) as pool:
        first = endless("One.")
        next(iter(first))
        server.wait_for_metric("smolvlm_running_sequences", 1)
        waiting = [pool.submit(endless, question) for question in ("Two.", "Three.")]
        server.wait_for_metric("smolvlm_waiting_prompts", 2)
        with pytest.raises(openai.RateLimitError) as caught:
            client.chat.completions.create(model="nano", messages=about("scene.png", "Four?"))
        assert caught.value.code == "queue_full"
        assert int(caught.value.response.headers["retry-after"]) >= 1
        assert server.metric("smolvlm_requests_refused_total", reason="queue_full") == 1
        first.close()
        for stream in waiting:
            stream.result().close()
    server.wait_for_metric("smolvlm_running_sequences", 0)
    assert client.chat.completions.create(model="nano", messages=text("Four."), max_tokens=2).usage.completion_tokens <= 2


def test_one_keys_limits(strict: tuple[Server, dict[str, str]]) -> None:
    server, keys = strict
    carol = server.client(keys["carol"])
    with carol.chat.completions.create(model="nano", messages=text("One."), stream=True, **ENDLESS) as stream:
        next(iter(stream))
        with pytest.raises(openai.RateLimitError, match="under way"):
            carol.chat.completions.create(model="nano", messages=text("Two."))
    server.wait_for_metric("smolvlm_running_sequences", 0)
    carol.chat.completions.create(model="nano", messages=text("Two."), max_tokens=1)
    with pytest.raises(openai.RateLimitError, match="requests a minute") as caught:
        carol.chat.completions.create(model="nano", messages=text("Three."), max_tokens=1)
    assert 1 <= int(caught.value.response.headers["retry-after"]) <= 30
    server.client(keys["bob"]).chat.completions.create(model="nano", messages=text("Three."), max_tokens=1)


def test_a_large_body_is_refused_said_or_not(strict: tuple[Server, dict[str, str]]) -> None:
    server, keys = strict
    headers = {"Authorization": f"Bearer {keys['alice']}", "content-type": "application/json"}
    error_of(httpx.post(server.url + CHAT, headers=headers, content=b"x" * 60_001), 413, "request_too_large")

    def pieces() -> Iterator[bytes]:
        yield from (b"x" * 1000 for _ in range(61))

    error_of(httpx.post(server.url + CHAT, headers=headers, content=pieces()), 413, "request_too_large")
    upload = {"file": ("big.mp4", b"x" * 60_001)}
    error_of(
        httpx.post(server.url + "/v1/files", headers={"Authorization": headers["Authorization"]}, files=upload), 413, "request_too_large"
    )


def test_slow_clients_are_cut_off(strict: tuple[Server, dict[str, str]]) -> None:
    """A head that never ends, a body that never comes, and a connection that says nothing."""
    server, keys = strict
    host, port = server.url.removeprefix("http://").split(":")
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {keys['alice']}\r\nContent-Type: application/json\r\n"
    for sent, expected in ((b"", b""), (b"POST /v1/ch", b""), (head.encode() + b"Content-Length: 50\r\n\r\n{", b"HTTP/1.1 408")):
        with socket.create_connection((host, int(port)), timeout=5) as connection:
            connection.sendall(sent)
            started = time.monotonic()
            answer = b""
            while piece := connection.recv(4096):
                answer += piece
            assert answer[: len(expected)] == expected
            assert bool(answer) == bool(expected)
            assert 0.3 < time.monotonic() - started < 3


def test_the_log_has_no_content(strict: tuple[Server, dict[str, str]]) -> None:
    server, keys = strict
    secret = "xylophone"
    made = server.client(keys["bob"]).chat.completions.create(
        model="nano", messages=text(f"{secret}?"), max_tokens=2, extra_headers={"x-request-id": "mine-1"}
    )
    assert made._request_id == "mine-1"
    deadline = time.monotonic() + 5
    while '"mine-1"' not in server.log.read_text():  # the line is written once the answer is out
        assert time.monotonic() < deadline
        time.sleep(0.02)
    lines = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    (mine,) = [line for line in lines if line.get("request_id") == "mine-1"]
    assert (mine["key"], mine["status"], mine["prompt_tokens"]) == ("bob", 200, made.usage.prompt_tokens)
    log = server.log.read_text()
    assert secret not in log
    assert "base64" not in log
    assert not any(key in log for key in keys.values())
