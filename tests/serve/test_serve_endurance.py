"""A real server over a long time, and its end in whatever state a signal finds it."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from helpers_serve import Server, serving, text

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="sends POSIX signals")]

CHAT = "/v1/chat/completions"
DRAIN_S = 2.0
GRACE_S = DRAIN_S + 20  # the time that `server.CLOSING_S` adds
LONG: dict[str, Any] = {"max_tokens": 1900, "ignore_eos": True, "loop_guard": False}


def send(server: Server, **fields: Any) -> None:
    """Ask, and take whatever comes: an answer, a refusal, or the end of the connection."""
    body = {"model": "nano", "messages": text("Hi.")} | fields
    with contextlib.suppress(httpx.TransportError):
        httpx.post(server.url + CHAT, json=body, timeout=60)


def hold(server: Server, head: bytes) -> socket.socket:
    host, port = server.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(head)
    return connection


POST = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 90000000\r\n\r\n".encode()


def bomb(server: Server, stop: threading.Event) -> None:
    """JSON of empty lists, again and again."""
    body = b'{"x":[' + b"[]," * 13_000_000 + b"1]}"
    while not stop.is_set():
        try:
            httpx.post(server.url + CHAT, content=body, headers={"Content-Type": "application/json"}, timeout=30)
        except httpx.TransportError:
            time.sleep(0.05)


def slow_body(server: Server, stop: threading.Event) -> None:
    """A byte now and then, of a picture that would take days."""
    with hold(server, POST + b'{"model":"nano","messages":[{"role":"user","content":[{"image_url":{"url":"data:') as held:
        while not stop.wait(0.1):
            try:
                held.sendall(b"A" * 1000)
            except OSError:
                return


def huge_pictures(server: Server, stop: threading.Event) -> None:
    made = io.BytesIO()
    Image.new("L", (9000, 9000)).save(made, "PNG")
    url = "data:image/png;base64," + base64.b64encode(made.getvalue()).decode()
    part = {"type": "image_url", "image_url": {"url": url}}
    with ThreadPoolExecutor(4) as pool:
        for i in range(4):
            pool.submit(send, server, messages=[{"role": "user", "content": [part] * 4 + [{"type": "text", "text": str(i)}]}])


def long_answers(server: Server, stop: threading.Event) -> None:
    with ThreadPoolExecutor(4) as pool:
        for i in range(4):
            pool.submit(send, server, messages=text(f"Say {i}."), **LONG)


def schemas(server: Server, stop: threading.Event) -> None:
    """Each takes the compiler to its limits."""
    with ThreadPoolExecutor(4) as pool:
        for i in range(4):
            patterns = [{"pattern": f"^(a|b)*{i}(a|b){{{n}}}$"} for n in range(2, 30)]
            schema = {"type": "object", "properties": {"a": {"type": "string", "allOf": patterns}}, "required": ["a"]}
            pool.submit(send, server, response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": schema}})


def idle_connections(server: Server, stop: threading.Event) -> None:
    """Some say nothing, some stop within a head, some have been answered and stay open."""
    heads = (b"", b"POST /v1/ch", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
    held = [hold(server, heads[i % 3]) for i in range(300)]
    stop.wait()
    for connection in held:
        connection.close()


def full_queue(server: Server, stop: threading.Event) -> None:
    with ThreadPoolExecutor(20) as pool:
        for i in range(20):
            pool.submit(send, server, messages=text(f"Say {i}."), **LONG)


def unread_answers(server: Server, stop: threading.Event) -> None:
    """Streams whose clients read nothing."""
    body = json.dumps({"model": "nano", "messages": text("Hi."), "stream": True, **LONG}).encode()
    head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    held = [hold(server, head.encode() + body) for _ in range(4)]
    stop.wait()
    for connection in held:
        connection.close()


STATES: list[Callable[[Server, threading.Event], None]] = [
    bomb,
    slow_body,
    huge_pictures,
    long_answers,
    schemas,
    idle_connections,
    full_queue,
    unread_answers,
]


@pytest.mark.parametrize("states", [*([state] for state in STATES), STATES], ids=[*(s.__name__ for s in STATES), "all at once"])
def test_sigterm_ends_it_in_time(tmp_path: Path, states: list[Callable[[Server, threading.Event], None]]) -> None:
    flags = ("--drain-s", str(DRAIN_S), "--max-waiting", "8", "--max-running", "2")
    with serving(tmp_path / "log", *flags) as server:
        children = psutil.Process(server.process.pid).children(recursive=True)
        assert children
        stop = threading.Event()
        running = [threading.Thread(target=state, args=(server, stop), daemon=True) for state in states]
        for thread in running:
            thread.start()
        time.sleep(2)
        began = time.monotonic()
        server.process.send_signal(signal.SIGTERM)
        try:
            assert server.process.wait(GRACE_S + 5) == 0, server.log.read_text()[-2000:]
            assert time.monotonic() - began < GRACE_S
        finally:
            stop.set()
        _, alive = psutil.wait_procs(children, timeout=10)
        assert not alive
        assert '"drained"' in server.log.read_text()


@pytest.mark.timeout(7200)
def test_memory_is_flat(tmp_path: Path) -> None:
    """20,000 short questions, each different, some by stream, some refused: after a tenth of them nothing grows by 3 %."""
    count, warm = 20_000, 2_000

    def memory(server: Server) -> int:
        process = psutil.Process(server.process.pid)
        return sum(int(p.memory_full_info().uss) for p in (process, *process.children(recursive=True)))  # of no other process

    with serving(tmp_path / "log", "--log-level", "warning") as server:
        numbers = iter(range(count))
        lock = threading.Lock()
        reached: dict[int, int] = {}

        def ask() -> None:
            with httpx.Client(base_url=server.url, timeout=120) as client:
                while True:
                    with lock:
                        number = next(numbers, None)
                    if number is None:
                        return
                    fields: dict[str, Any] = {"model": "nano", "messages": text(f"Question {number}: {number * 7919}?"), "max_tokens": 2}
                    if number % 10 == 3:
                        fields["stream"] = True
                    if number % 10 == 7:
                        fields["temperature"] = "hot"
                    answer = client.post(CHAT, json=fields)
                    assert answer.status_code == (400 if number % 10 == 7 else 200), answer.text
                    if number and number % warm == 0:
                        reached[number] = memory(server)

        with ThreadPoolExecutor(4) as pool:
            for done in [pool.submit(ask) for _ in range(4)]:
                done.result()
        reached[count] = memory(server)
    print({number: round(size / 1e6, 1) for number, size in sorted(reached.items())})
    assert reached[count] <= 1.03 * reached[warm], reached
    assert max(reached.values()) <= 1.03 * reached[warm], reached
