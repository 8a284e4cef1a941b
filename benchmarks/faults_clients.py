"""Faults of clients: they are slow, they say nothing, they do not listen, they hang up."""

from __future__ import annotations

import asyncio
import importlib
import socket
import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from benchmarks.fault_requests import CHAT, Known, Scale, asked, endless, expect, known_questions, raw_request
from benchmarks.server_process import ServerProcess, run_server

_HEAD = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n".encode()
_SLACK_S = 5.0  # in which the server notices, on a busy machine
_OTHERS = 40  # files that a server and a client have open beside connections, and more


def slow_heads(folder: Path, scale: Scale) -> Iterator[str]:
    """Clients that send a byte of their request's head every quarter of a second."""
    with run_server(folder / "log", "--head-timeout-s", str(scale.patience_s)) as server:
        answers, lasted, seconds = _dribbled(server, scale, _HEAD + b"X-Slow: ")
        expect(not any(answers), "a head that never ended got an answer")
        yield _told(scale, "heads", lasted, seconds, "closed")


def slow_bodies(folder: Path, scale: Scale) -> Iterator[str]:
    """Clients that send a byte of their body every quarter of a second: never too long between two pieces."""
    with run_server(folder / "log", "--body-timeout-s", str(scale.patience_s)) as server:
        answers, lasted, seconds = _dribbled(server, scale, _HEAD + b"Content-Length: 1000000\r\n\r\n{")
        # A byte that was on its way when the server closed takes the answer along: then the client only sees the end.
        expect({answer[:13] for answer in answers} <= {b"HTTP/1.1 408 ", b""}, f"answers {set(answers)}")
        expect(any(answers), "nobody was told why")
        yield _told(scale, "bodies", lasted, seconds, "answered with 408 and closed")


def _told(scale: Scale, what: str, lasted: list[float], seconds: list[float], end: str) -> str:
    expect(max(lasted) < scale.patience_s + _SLACK_S, f"one was left open for {max(lasted):.1f} s")
    usual = statistics.median(seconds[:1])
    return (
        f"{scale.slow} dribbled {what} at once: each {end} after {min(lasted):.1f} to {max(lasted):.1f} s "
        f"(limit {scale.patience_s:g} s); a question meanwhile takes {1000 * statistics.median(seconds[1:]):.0f} ms, "
        f"{1000 * usual:.0f} ms without them"
    )


def _dribbled(server: ServerProcess, scale: Scale, begin: bytes) -> tuple[list[bytes], list[float], list[float]]:
    """What `scale.slow` dribbling clients were told, how long each lasted, and the seconds of questions: one before, the
    others meanwhile."""
    question = known_questions(1)[0]
    asked(server.url, question)
    seconds = [_timed(server, question)]

    async def dribble() -> tuple[bytes, float]:
        reader, writer = await asyncio.open_connection(*server.address)
        began = time.monotonic()
        writer.write(begin)
        answer = asyncio.ensure_future(reader.read())
        try:
            while not answer.done():
                writer.write(b"x")
                await asyncio.wait([answer], timeout=0.25)
            told = answer.result()
        except ConnectionError:
            told = b""
        lasted = time.monotonic() - began
        writer.close()
        return told, lasted

    async def everything() -> list[tuple[bytes, float]]:
        return await asyncio.gather(*(dribble() for _ in range(scale.slow)))

    _allow_connections(scale.slow)
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(asyncio.run, everything())
        time.sleep(0.3)
        while not slow.done():
            seconds.append(_timed(server, question))
            time.sleep(0.1)
        found = slow.result()
    return [told for told, _ in found], [lasted for _, lasted in found], seconds


def _timed(server: ServerProcess, question: Known) -> float:
    began = time.perf_counter()
    expect(asked(server.url, question) == question.answer, "a question was answered otherwise than alone")
    return time.perf_counter() - began


def unread_answers(folder: Path, scale: Scale) -> Iterator[str]:
    """Clients that ask for megabytes of stream and never read a byte of it."""
    question = known_questions(1)[0]
    many = max(2, scale.clients // 8)
    with run_server(folder / "log", "--max-running", "64") as server:
        asked(server.url, question)
        usual, files = _timed(server, question), server.files_at_rest()
        deaf = []
        for n in range(many):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(server.address)
            client.sendall(raw_request(endless(f"Number {n}.", n=8, logprobs=True, top_logprobs=20)))
            deaf.append(client)
        began = time.monotonic()
        while server.metric("smolvlm_jobs_total", outcome="finished") < many + 3:  # the warm-up and two questions
            expect(time.monotonic() - began < 60, "their answers are not written to the end")
            time.sleep(0.2)
        written = time.monotonic() - began
        expect(server.metric("smolvlm_running_sequences") == 0, "an answer that nobody reads holds its place")
        slowest = max(_timed(server, question) for _ in range(10))
        while server.open_files() > files:
            expect(time.monotonic() - began < 60 + written + _SLACK_S, "their connections stay")
            time.sleep(0.5)
        closed = time.monotonic() - began
        for client in deaf:
            client.close()
        yield (
            f"{many} streams of 8 answers with log-probabilities: written in {written:.0f} s, their places in the batch are "
            f"free then; a question takes at most {1000 * slowest:.0f} ms afterwards ({1000 * usual:.0f} ms before)"
        )
        yield f"the connections are cut after {closed:.0f} s (a full buffer may stay untouched for 60 s)"


def idle_connections(folder: Path, scale: Scale) -> Iterator[str]:
    """Connections that are opened and say nothing."""
    question = known_questions(1)[0]
    _allow_connections(scale.connections)
    with run_server(folder / "log", "--head-timeout-s", str(scale.idle_s)) as server:
        asked(server.url, question)
        usual = statistics.median(_timed(server, question) for _ in range(10))
        files, memory = server.files_at_rest(), server.memory_bytes()
        began = time.monotonic()
        silent = [socket.create_connection(server.address, timeout=30) for _ in range(scale.connections)]
        opened = time.monotonic() - began
        while server.open_files() < files + scale.connections:
            expect(time.monotonic() - began < scale.idle_s, f"the server has only {server.open_files()} files open")
            time.sleep(0.05)
        seconds = [_timed(server, question) for _ in range(10)]
        held, grown = server.open_files() - files, server.memory_bytes() - memory
        expect(held >= scale.connections, f"only {held} were open at once")
        yield (
            f"{held:,} connections open at once (opened in {opened:.1f} s, {grown / held / 1000:.0f} kB each): a question "
            f"takes {1000 * statistics.median(seconds):.0f} ms, at most {1000 * max(seconds):.0f} ms; "
            f"{1000 * usual:.0f} ms without them"
        )
        while server.open_files() > files:
            expect(time.monotonic() - began < opened + scale.idle_s + _SLACK_S, f"{server.open_files() - files} stay open")
            time.sleep(0.2)
        gone = time.monotonic() - began
        yield f"each is closed after --head-timeout-s ({scale.idle_s:g} s here, 10 s by default): none is left after {gone:.0f} s"
        for connection in silent:
            connection.close()
        expect(_timed(server, question) < 10, "answers afterwards")


def hang_ups(folder: Path, scale: Scale) -> Iterator[str]:
    """Half of the clients close their stream after its first words, while the others read on."""
    questions = known_questions(scale.clients)
    with run_server(folder / "log") as server, ThreadPoolExecutor(2 * scale.clients) as pool:

        def leave(n: int) -> None:
            request = endless(f"Number {n}.")
            with httpx.stream("POST", server.url + CHAT, json=request, timeout=120, trust_env=False) as response:
                expect(response.status_code == 200, f"a stream began with {response.status_code}")
                lines = response.iter_lines()
                for _ in range(9):
                    next(lines)

        left = [pool.submit(leave, n) for n in range(scale.clients)]
        stayed = [pool.submit(asked, server.url, question) for question in questions]
        right = sum(answer.result() == question.answer for answer, question in zip(stayed, questions, strict=True))
        for client in left:
            client.result()
        ended = time.monotonic()
        while server.metric("smolvlm_running_sequences"):
            expect(time.monotonic() - ended < _SLACK_S, "an answer goes on for a client that has left")
            time.sleep(0.02)
        free = time.monotonic() - ended
        cancelled = server.metric("smolvlm_jobs_total", outcome="cancelled")
        expect(cancelled == scale.clients, f"{cancelled} answers were given up")
        expect(right == scale.clients, f"{right} of {scale.clients} answers are right")
        yield (
            f"{scale.clients} of {2 * scale.clients} clients leave in mid-answer: their {cancelled:.0f} answers end (the last "
            f"{free:.1f} s after its client), the {right} others are as alone"
        )


def _allow_connections(count: int) -> None:
    """Raise this process's limit of open files. Raises PermissionError where the system does not let it."""
    resource = importlib.import_module("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < count + _OTHERS:
        raise PermissionError(f"{count} connections need as many open files, and this system allows {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count + _OTHERS), hard))
