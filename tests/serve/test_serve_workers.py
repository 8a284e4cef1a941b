"""Several server processes on one address: a real supervisor, real workers, real signals."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from helpers_serve import MEDIA, Server, about, serving, text
from smolvlm.cli.main import main
from smolvlm.hub import resolve
from smolvlm.listening import listen
from smolvlm.serve.fair_socket import HEAD_START_S, FairSocket, Loads
from smolvlm.serve.workers import shares

CHAT = "/v1/chat/completions"
LONG: dict[str, Any] = {"max_tokens": 1200, "extra_body": {"ignore_eos": True, "loop_guard": False}}
_numbers = itertools.count()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("workers") / "log", "--workers", "2") as server:
        server.wait_for_metric("smolvlm_worker_processes", 2)
        yield server


def lines(server: Server, **wanted: Any) -> list[dict[str, Any]]:
    """Lines of the log with these fields."""
    found = [json.loads(line) for line in server.log.read_text().splitlines() if line.startswith("{")]
    return [line for line in found if all(line.get(key) == value for key, value in wanted.items())]


def living(server: Server) -> set[int]:
    """Process ids of the workers that run."""
    children = psutil.Process(server.process.pid).children()
    return {child.pid for child in children if child.status() != psutil.STATUS_ZOMBIE}


def chat(server: Server, messages: list[Any], **more: Any) -> tuple[str, str]:
    """Ask over a connection of its own: the answer, and the request's id."""
    name = f"test-{next(_numbers)}"
    body = {"model": "nano", "messages": messages, "max_tokens": 24, **more}
    response = httpx.post(server.url + CHAT, json=body, headers={"x-request-id": name}, timeout=30)
    assert response.status_code == 200, response.text
    return response.json()["choices"][0]["message"]["content"], name


def worker_of(server: Server, request_id: str) -> int:
    """Which process wrote the request's line in the log."""
    deadline = time.monotonic() + 5
    while not (found := lines(server, request_id=request_id)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return int(found[0]["pid"])


def asked_of_both(server: Server, messages: list[Any]) -> dict[int, set[str]]:
    """Answers by worker, asked at the same time until each worker has given one."""
    answers: dict[int, set[str]] = {}
    deadline = time.monotonic() + 20
    while set(answers) != living(server):
        assert time.monotonic() < deadline, answers
        with ThreadPoolExecutor(4) as pool:
            for answer, name in pool.map(lambda _: chat(server, messages), range(4)):
                answers.setdefault(worker_of(server, name), set()).add(answer)
    return answers


def test_both_answer_with_their_share_of_the_cores(pair: Server) -> None:
    answers = asked_of_both(pair, about("scene.png", "Describe this picture."))
    assert len(answers) == 2
    assert set.union(*answers.values()) == next(iter(answers.values())), "the same question has one answer"
    ready = lines(pair, message="a worker is ready")
    assert {line["worker"] for line in ready} == set(answers)
    assert {line["threads"] for line in ready} == {"1"}  # SMOLVLM_THREADS=1 of `serving` is for each
    assert {line["pid"] for line in lines(pair) if line["message"].endswith(", 1 threads")} == set(answers)
    assert shares(8, 3) == [3, 3, 2]
    assert shares(2, 4) == [1, 1, 1, 1]


def test_an_upload_is_known_to_both(pair: Server) -> None:
    client = pair.client()
    with (MEDIA / "scene.png").open("rb") as stream:
        upload = client.files.create(file=stream, purpose="vision")
    parts: list[Any] = [
        {"type": "file", "file": {"file_id": upload.id}},
        {"type": "text", "text": "Describe this picture."},
    ]
    answers = asked_of_both(pair, [{"role": "user", "content": parts}])
    expected, _ = chat(pair, about("scene.png", "Describe this picture."))
    assert set.union(*answers.values()) == {expected}
    client.files.delete(upload.id)
    for _ in range(8):  # new connections: both are asked
        assert httpx.get(f"{pair.url}/v1/files/{upload.id}").status_code == 404


def test_metrics_are_sums_over_both(pair: Server) -> None:
    labels = {"route": CHAT, "status": "200"}
    before = pair.metric("smolvlm_http_requests_total", **labels)
    counted = pair.metric("smolvlm_completion_tokens_total")
    answers = asked_of_both(pair, text("Say something."))
    assert len(answers) == 2
    done = len([line for line in lines(pair, route=CHAT, status=200) if line["request_id"].startswith("test-")])
    for _ in range(6):  # whoever is asked
        assert pair.metric("smolvlm_http_requests_total", **labels) == done > before
        assert pair.metric("smolvlm_completion_tokens_total") > counted
        assert pair.metric("smolvlm_worker_processes") == 2


def test_a_killed_worker_is_replaced(pair: Server) -> None:
    workers, counted = living(pair), pair.metric("smolvlm_completion_tokens_total")
    victim = next(iter(workers))
    os.kill(victim, signal.SIGKILL)
    answered = set()
    deadline = time.monotonic() + 20
    while not (len(now := living(pair)) == 2 and victim not in now and pair.metric("smolvlm_worker_processes") == 2):
        assert time.monotonic() < deadline
        answered.add(worker_of(pair, chat(pair, text("And now?"))[1]))  # the service goes on all the while
    assert answered & (workers - {victim})
    (died,) = lines(pair, message="a worker died")
    assert (died["status"], died["ready_workers"]) == ("signal SIGKILL", 1)
    assert pair.metric("smolvlm_completion_tokens_total") >= counted, "what a dead worker counted stays"
    assert set(asked_of_both(pair, text("Both?"))) == now


def test_a_connection_is_left_to_the_less_busy(tmp_path: Path) -> None:
    """Two processes' views of one socket, in one process."""
    Loads.create(tmp_path / "loads", 2)
    loads = Loads(tmp_path / "loads")
    with listen("127.0.0.1", 0) as bound:
        ours, theirs = (FairSocket(os.dup(bound.fileno()), Loads(tmp_path / "loads"), place) for place in (0, 1))
        for end in (ours, theirs):
            end.listen()
            end.setblocking(False)
        address = bound.getsockname()
        clients = [socket.create_connection(address)]
        first, _ = ours.accept()
        assert loads.least() == 0
        with pytest.raises(BlockingIOError):
            ours.accept()

        ending = threading.Event()

        def take() -> None:
            while not ending.is_set():
                with contextlib.suppress(BlockingIOError):
                    theirs.accept()[0].close()

        left = 0
        with ThreadPoolExecutor(1) as pool:
            taking = pool.submit(take)
            for _ in range(20):
                clients.append(socket.create_connection(address))
                try:
                    ours.accept()[0].close()
                except BlockingIOError:
                    left += 1
            ending.set()
            taking.result()
        assert left, "with no head start it is 0 of 20; on a machine that is busy with other things, not 20 either"
        clients.append(socket.create_connection(address))
        began = time.perf_counter()
        third, _ = ours.accept()  # the other one does not come
        assert time.perf_counter() - began >= HEAD_START_S
        theirs.close()
        assert loads.least() == 2, "who is gone does not count"
        for open_one in (first, third, ours, *clients):
            open_one.close()


@pytest.mark.slow
def test_limits_of_a_key_hold_over_all_workers(log: Path) -> None:
    """Three at the same time and twelve at once, whichever workers they meet; a dead worker's requests are given back."""
    with serving(log, "--workers", "2", "--key-concurrency", "3", "--key-rate", "12") as server:
        server.wait_for_metric("smolvlm_worker_processes", 2)
        endless = LONG | {"max_tokens": 1900, "n": 8}
        streams = [server.client().chat.completions.create(model="nano", messages=text("Go on."), stream=True, **endless)
                   for _ in range(3)]  # fmt: skip
        refused = [httpx.post(server.url + CHAT, json={"model": "nano", "messages": text("Me too.")}) for _ in range(8)]
        assert {(response.status_code, "under way" in response.text) for response in refused} == {(429, True)}
        (own, *_) = [child.pid for child in psutil.Process(server.process.pid).children()]
        os.kill(own, signal.SIGKILL)
        for stream in streams:
            stream.close()
        server.wait_for_metric("smolvlm_running_sequences", 0)
        server.wait_for_metric("smolvlm_worker_processes", 2)
        admitted, last = 3, ""
        while "requests a minute" not in last:
            response = httpx.post(server.url + CHAT, json={"model": "nano", "messages": text("Now?"), "max_tokens": 1})
            admitted, last = admitted + (response.status_code == 200), response.text
            assert admitted < 20
        assert 12 <= admitted <= 14, "a place comes back every five seconds"


def test_limits_lapse_on_a_full_disk(tmp_path: Path) -> None:
    """A process that may not write a byte more still answers; before that, its limit holds."""
    code = """
import resource, sys
from pathlib import Path
from smolvlm.serve.errors import ServeError
from smolvlm.serve.shared_quotas import SharedQuotas

quotas = SharedQuotas(rate=2, concurrency=0, folder=Path(sys.argv[1]))

def admitted():
    done = 0
    for _ in range(5):
        try:
            with quotas.request("alice"):
                done += 1
        except ServeError:
            pass
    return done

before = admitted()
resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
print(before, admitted())
"""
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["2", "4"], done.stderr  # the first one still met what had been written


@pytest.mark.slow
def test_sigterm_under_load_drains_every_worker(log: Path) -> None:
    with serving(log, "--workers", "2") as server:
        server.wait_for_metric("smolvlm_worker_processes", 2)
        port = int(server.url.rpartition(":")[2])
        started = threading.Barrier(5)

        def stream() -> int:
            options = LONG | {"stream_options": {"include_usage": True}}
            with server.client().chat.completions.create(
                model="nano", messages=text("Go on."), stream=True, **options
            ) as made:
                chunks = iter(made)
                next(chunks)
                started.wait(30)
                return list(chunks)[-1].usage.completion_tokens

        with ThreadPoolExecutor(4) as pool:
            streams = [pool.submit(stream) for _ in range(4)]
            started.wait(30)
            workers = living(server)
            assert server.stop() == 0
            assert [made.result() for made in streams] == [LONG["max_tokens"]] * 4
        assert {line["pid"] for line in lines(server, message="drained", unfinished=0)} == workers
        assert not any(psutil.pid_exists(pid) for pid in workers)
        with listen("127.0.0.1", port) as free:  # as the next server will; refused while anybody listens
            free.listen()


@pytest.mark.slow
def test_workers_end_with_their_supervisor(log: Path) -> None:
    with serving(log, "--workers", "2") as server:
        server.wait_for_metric("smolvlm_worker_processes", 2)
        workers = [psutil.Process(pid) for pid in living(server)]
        server.process.kill()
        _, left = psutil.wait_procs(workers, 15)
        assert not left


@pytest.mark.slow
def test_it_gives_up_when_no_worker_can_be_started(log: Path, tmp_path: Path) -> None:
    """The model's folder goes, then the workers: the pauses double, and the end is status 1, which systemd takes up."""
    folder = tmp_path / "model"
    shutil.copytree(resolve("nano"), folder)
    with serving(log, "--workers", "2", "--model", str(folder)) as server:
        server.wait_for_metric("smolvlm_worker_processes", 2)
        shutil.rmtree(folder)
        for pid in living(server):
            os.kill(pid, signal.SIGKILL)
        assert server.process.wait(120) == 1
        pauses = {line["again_in_s"] for line in lines(server, message="a worker died")}
        assert pauses == {0.5, 1.0, 2.0, 4.0, 8.0, 16.0}
        assert lines(server, message="no worker lives, and none can be started")


def test_what_is_wrong_is_said_once(capfd: pytest.CaptureFixture[str]) -> None:
    """In the worker, which alone meets the model, and before it starts."""
    done = subprocess.run([sys.executable, "-m", "smolvlm", "serve", "--model", "nano", "--port", "0", "--workers", "3", "--dtype", "q5"],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "q5" in line]
    assert line.startswith("smolvlm: error: ")
    assert "Traceback" not in done.stderr
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for flags, word in ((["--workers", "0"], "--workers 0"), (["--workers", "2", "--port", port], "cannot listen")):
            assert main(["serve", "--model", "nano", *flags]) == 2
            assert word in capfd.readouterr().err
