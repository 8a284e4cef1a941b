"""Asking a teacher: a real HTTP server on this machine, killed runs, refusals, and what is no answer."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smolvlm.errors import TeacherError
from smolvlm.train.teacher import Question, TeacherOptions, ask_teacher, image_part, question_key

Reply = Callable[[dict[str, Any], int], tuple[int, Any]]


class Server(ThreadingHTTPServer):
    """Answers chat completions by `reply(body, number of the call)` and remembers what it was asked."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        self.reply, self.bodies, self.headers, self.lock = reply, [], [], threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with self.server.lock:
            self.server.bodies.append(body)
            self.server.headers.append(dict(self.headers))
            number = len(self.server.bodies)
        status, content = self.server.reply(body, number) if self.path == "/v1/chat/completions" else (404, "no such page")
        data = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: Any) -> None:
        pass


def completion(text: str | None, reason: str = "stop") -> dict[str, Any]:
    return {"choices": [{"message": {"role": "assistant", "content": text}, "finish_reason": reason}]}


def echo(body: dict[str, Any], _number: int) -> tuple[int, Any]:
    return 200, completion(f"answer to {body['messages'][-1]['content']}")


@pytest.fixture
def serve() -> Iterator[Callable[[Reply], Server]]:
    servers = []

    def start(reply: Reply) -> Server:
        server = Server(reply)
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def questions(*texts: str) -> list[Question]:
    return [Question(question_key(t), lambda t=t: [{"role": "user", "content": t}]) for t in texts]


def options(server: Server, **more: Any) -> TeacherOptions:
    return TeacherOptions(server.endpoint, "teacher", **{"pause_s": 0.01, "attempts": 3, **more})


def test_every_question_is_asked_once_over_two_runs(serve: Callable[[Reply], Server], tmp_path: Path) -> None:
    server, path = serve(echo), tmp_path / "answers.jsonl"
    texts = [f"question {i}" for i in range(12)]
    first = ask_teacher(questions(*texts[:5]), options(server, api_key="sesame", max_tokens=77), path)
    assert first.answers == {question_key(t): f"answer to {t}" for t in texts[:5]}
    assert server.bodies[0] == {
        "model": "teacher",
        "messages": server.bodies[0]["messages"],
        "max_tokens": 77,
        "temperature": 0.0,
        "stream": False,
    }
    assert server.headers[0]["Authorization"] == "Bearer sesame"
    with path.open("a") as file:
        file.write('{"key": "cut off by a ki')  # what a kill in the middle of a line leaves
    counted: list[int] = []
    second = ask_teacher(questions(*texts, texts[0]), options(server), path, counted.append)
    assert len(server.bodies) == 12
    assert second.answers == {question_key(t): f"answer to {t}" for t in texts}
    assert sorted(counted) == list(range(6, 13))
    assert {json.loads(line)["key"] for line in path.read_text().splitlines()} == set(second.answers)


def test_it_is_patient_and_says_when_it_gives_up(serve: Callable[[Reply], Server], tmp_path: Path) -> None:
    busy = serve(lambda body, number: (503, "loading") if number < 3 else echo(body, number))
    assert ask_teacher(questions("a"), options(busy), tmp_path / "a.jsonl").answers == {question_key("a"): "answer to a"}
    assert len(busy.bodies) == 3
    gone = serve(echo)
    endpoint = gone.endpoint
    gone.shutdown()
    gone.server_close()
    with pytest.raises(TeacherError, match=r"cannot be reached.*after 2 attempts.*run the command again"):
        ask_teacher(questions("a"), TeacherOptions(endpoint, "m", attempts=2, pause_s=0.01), tmp_path / "b.jsonl")


def test_a_refusal_ends_the_run_and_keeps_what_was_answered(serve: Callable[[Reply], Server], tmp_path: Path) -> None:
    server = serve(lambda body, number: echo(body, number) if number < 3 else (401, "bad key"))
    path = tmp_path / "answers.jsonl"
    with pytest.raises(TeacherError, match=r"status 401.*bad key.*check the address"):
        ask_teacher(questions(*(f"q{i}" for i in range(50))), options(server, parallel=1), path)
    assert len(server.bodies) == 3, "a refusing server is not asked again"
    assert len(path.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("content", "reason"),
    [(completion("half an ans", "length"), "cut off at max_tokens"), (completion("  "), "was empty"), (completion(None), "was empty")],
)
def test_what_is_no_answer_is_skipped_and_counted(serve: Callable[[Reply], Server], tmp_path: Path, content: Any, reason: str) -> None:
    server = serve(lambda body, number: (200, content) if "bad" in body["messages"][0]["content"] else echo(body, number))
    asked = ask_teacher(questions("good", "bad"), options(server), tmp_path / "a.jsonl")
    assert list(asked.answers) == [question_key("good")]
    assert asked.failed == 1
    assert reason in asked.reason
    too_long = serve(lambda *_: (400, "context too long"))
    assert ask_teacher(questions("x", "y"), options(too_long), tmp_path / "b.jsonl").failed == 2


@pytest.mark.parametrize("reply", ["<html>", {"choices": []}, {"choices": [{"message": None}]}, "[]", "x" * (9 << 20)])
def test_a_reply_in_another_format_is_named(serve: Callable[[Reply], Server], tmp_path: Path, reply: Any) -> None:
    server = serve(lambda *_: (200, reply))
    with pytest.raises(TeacherError, match=r"not in the chat completions format|does not end"):
        ask_teacher(questions("a"), options(server, attempts=1), tmp_path / "a.jsonl")


def test_a_redirect_is_not_followed(serve: Callable[[Reply], Server], tmp_path: Path) -> None:
    """Else a server could send the key and the pictures on to another machine."""
    with pytest.raises(TeacherError, match="status 307"):
        ask_teacher(questions("a"), options(serve(lambda *_: (307, ""))), tmp_path / "a.jsonl")


def test_pictures_travel_as_small_jpegs() -> None:
    picture = Image.new("RGB", (3072, 100), (200, 30, 30))
    part = image_part(picture)
    head, data = part["image_url"]["url"].split(",", 1)
    assert head == "data:image/jpeg;base64"
    arrived = Image.open(io.BytesIO(base64.b64decode(data)))
    assert arrived.size == (1536, 50)
    assert all(abs(a - b) < 6 for a, b in zip(arrived.getpixel((700, 25)), (200, 30, 30), strict=True))
    assert picture.size == (3072, 100)


@pytest.mark.parametrize("damage", ["{}\n", "[1]\n", '{"key": 1, "answer": "a"}\n', "nonsense\n"])
def test_a_damaged_file_of_answers_is_named(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text(damage)
    with pytest.raises(TeacherError, match=r"answers.jsonl: cannot be read as a teacher's answers"):
        ask_teacher([], TeacherOptions("http://127.0.0.1:1/v1", "m"), path)


@pytest.mark.parametrize("endpoint", ["", "localhost:8000", "ftp://host/v1", "file:///etc/passwd", "http://"])
def test_an_endpoint_must_be_an_address(endpoint: str) -> None:
    with pytest.raises(TeacherError, match=r"http://HOST:PORT/v1"):
        TeacherOptions(endpoint, "m")
    assert TeacherOptions("http://h:1/v1/", "m").url == TeacherOptions("http://h:1/v1/chat/completions", "m").url
