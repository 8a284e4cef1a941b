"""What goes wrong around the server, made for real and in small; `python -m benchmarks.faults` makes it in large.

`pytest -m slow tests/serve/test_serve_faults.py` makes those that take longer.
"""

from __future__ import annotations

import asyncio
import socket
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # `benchmarks` stands beside `tests`

from benchmarks import faults, soak
from benchmarks.fault_requests import Scale
from benchmarks.server_process import run_server

from smolvlm.listening import listen
from smolvlm.serve.protocol import PatientProtocol

pytestmark = pytest.mark.slow  # faults and hostile files: the outer ring

SMALL = Scale(requests=10, clients=6, slow=30, connections=300, patience_s=1.0, idle_s=3.0)
# Several servers one after another, a minute of silence, a clock that a busy machine breaks, or made in small elsewhere here.
# Of clients that are slow or hang up: tests/serve/test_serve_limits.py and test_serve_media_workers.py.
SLOW = {
    "unread_answers",
    "full_disk",
    "lost_model",
    "killed_decoders",
    "sigterm",
    "idle_connections",
    "hang_ups",
    "slow_bodies",
    "slow_heads",
}


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in faults.FAULTS])
def test_fault(name: str) -> None:
    try:
        sentences = faults.run(name, SMALL)
    except PermissionError as error:
        pytest.skip(str(error))
    assert sentences
    print(*sentences, sep="\n")


@pytest.mark.slow
def test_a_little_soak(tmp_path: Path) -> None:
    """More than the server can do, for three seconds: each request is answered as alone or refused, and then all is as before."""
    questions = soak.make_questions(Console(quiet=True), 0.05)
    assert {question.kind for question in questions} == {"picture", "clip", "text"}
    with run_server(tmp_path / "log", "--max-waiting", "4", "--max-running", "2") as server:
        report = asyncio.run(soak.soak(server, questions, rate=150, seconds=3))
    outcomes = {what for counts in report["outcomes"].values() for what in counts}
    assert outcomes == {"right", "429"}
    assert report["offered"] == 450 == sum(n for counts in report["outcomes"].values() for n in counts.values())
    assert report["back_s"] < 5


def test_answers_of_others_and_broken_ones_would_be_seen(tmp_path: Path) -> None:
    first, second = [question for question in soak.make_questions(Console(quiet=True), 0.01) if question.kind == "picture"][:2]
    assert first.answer != second.answer
    with run_server(tmp_path / "log") as server:
        mixed_up = replace(first, body=second.body, streamed_body=second.streamed_body)
        broken = replace(first, body=b"{", streamed_body=b"{")
        for streamed in (False, True):
            assert asyncio.run(soak.ask(server.address, first, streamed)) == "right"
            assert asyncio.run(soak.ask(server.address, mixed_up, streamed)) == "wrong"
            assert asyncio.run(soak.ask(server.address, broken, streamed)) == "400"
        address = server.address
    assert asyncio.run(soak.ask(address, first, False)) == "lost"


def test_memory_is_flat_or_it_is_not() -> None:
    """Worked out by hand: a process that is replaced is a dip of a second; a leak of a thousandth a minute adds up to 0.7 %."""
    seconds = [float(s) for s in range(600)]
    dips = [(s, 60 if s % 100 == 50 else 100) for s in seconds]
    assert soak.flatness(dips)["change"] == 0
    leak = [(s, int(1_000_000 * (1 + s / 60_000))) for s in seconds]
    # Medians of the half minutes from 120 and from 540 s on (the last that is whole), 420 s apart, over the first of them.
    assert soak.flatness(leak)["change"] == pytest.approx((420 / 60_000) / (1 + 134.5 / 60_000), rel=1e-3)
    assert soak.flatness([(s, 100) for s in seconds[:100]])["change"] is None


class DeafProtocol(PatientProtocol):
    unread_timeout_s = 0.5


@pytest.mark.parametrize("read_some", [False, True])
def test_an_answer_that_nobody_reads_is_cut_off(read_some: bool) -> None:
    """Endless megabytes for a client that reads nothing, or slowly but steadily: only the first is cut off."""
    gone = threading.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        async def until_gone() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        watching = asyncio.create_task(until_gone())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        while not gone.is_set():
            await send({"type": "http.response.body", "body": bytes(1 << 16), "more_body": True})
        await watching

    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, http=DeafProtocol, lifespan="off", log_config=None))
    thread = threading.Thread(target=server.run, args=([listening],), daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect(listening.getsockname())
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        if read_some:
            began = time.monotonic()
            while time.monotonic() - began < 4 * DeafProtocol.unread_timeout_s:
                assert client.recv(1 << 16)
            assert not gone.is_set()
        else:
            assert gone.wait(10 * DeafProtocol.unread_timeout_s)
    server.should_exit = True
    thread.join(10)
    assert not thread.is_alive()
