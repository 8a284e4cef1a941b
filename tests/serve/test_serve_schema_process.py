"""Schemas of strangers in a real server: bombs are refused, an error of the grammar is an error, and SIGTERM waits for none."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import re
import signal
import threading
import time
from collections.abc import Coroutine
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import jsonschema
import pytest

from helpers_generation import eos_id, small_tokenizer, vocab_size
from helpers_schemas import hostile_schemas, random_schema
from helpers_serve import Server, serving, text
from smolvlm.errors import SchemaError
from smolvlm.serve.engine import schema_process
from smolvlm.serve.engine.schema_process import SchemaProcesses

FLAT = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": False}
# It compiles, and once `a` was written in it nearly every text is a state of its own: no answer can be followed for long.
DROWNING = {"type": "string", "pattern": "^.*a.{12}$"}

BOMBS = ("defs used twice 34", "patterns joined 30", "multiples 999983", "alternatives multiplied 12", "wide optional objects 1000")


def in_processes(work: Any) -> None:
    """Run `await work(processes)` with real compiling processes."""

    async def run() -> None:
        found = SchemaProcesses(small_tokenizer().to_str(), vocab_size(), [eos_id()])
        try:
            await found.start()
            await work(found)
        finally:
            await found.close()

    asyncio.run(run())


def ask(server: Server, schema: Any, **more: Any) -> httpx.Response:
    wanted = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    body = {"model": "nano", "messages": text("Fill it."), "max_tokens": 60, "response_format": wanted, **more}
    return httpx.post(f"{server.url}/v1/chat/completions", json=body, timeout=60)


def test_a_schema_is_compiled_once_and_its_grammars_are_independent() -> None:
    async def work(found: SchemaProcesses) -> None:
        first, second = await found.grammars(FLAT, 2, "a")
        (third,) = await found.grammars(FLAT, 1, "b")
        first.accept(int(first.allowed().argmax()))
        assert first.plan != second.plan
        assert second.plan == third.plan
        (free,) = await found.grammars({}, 1, "a")
        assert not free.is_complete
        with pytest.raises(SchemaError, match="minLength=9"):
            await found.grammars({"type": "string", "minLength": 9, "maxLength": 3}, 1, "a")
        assert found.lost == 0

    in_processes(work)


@pytest.mark.parametrize(("name", "value", "words"), [("COMPILE_S", 0.001, "0.001 s of a processor"), ("MEMORY_MB", 1, "more than 1 MB")])
@pytest.mark.slow
def test_a_schema_that_ends_its_process_is_refused_and_others_go_on(
    monkeypatch: pytest.MonkeyPatch, name: str, value: float, words: str
) -> None:
    """With limits that a large schema is beyond; the process that follows has the usual ones."""
    large = dict(hostile_schemas())["large enums of objects 900"]
    monkeypatch.setattr(schema_process, name, value)

    async def work(found: SchemaProcesses) -> None:
        with pytest.raises(SchemaError, match=words):
            await found.grammars(large, 1, "a")
        assert found.lost == 1
        with pytest.raises(SchemaError, match=words):  # remembered: no second process is lost
            await found.grammars(large, 1, "a")
        assert found.lost == 1
        monkeypatch.undo()
        found._idle.clear()
        (grammar,) = await found.grammars(FLAT, 1, "a")
        assert grammar.plan

    in_processes(work)


@pytest.mark.slow
def test_processes_that_are_killed_from_outside_are_replaced() -> None:
    async def work(found: SchemaProcesses) -> None:
        for child in found._living:
            os.kill(child.process.pid, signal.SIGKILL)
        (grammar,) = await found.grammars(FLAT, 1, "a")
        assert grammar.plan

    in_processes(work)


@pytest.mark.slow
def test_a_request_that_is_given_up_takes_its_process_with_it() -> None:
    async def work(found: SchemaProcesses) -> None:
        stopped = list(found._living)
        for child in stopped:
            os.kill(child.process.pid, signal.SIGSTOP)  # as one that never comes back
        waiting: Coroutine[Any, Any, Any] = found.grammars(FLAT, 1, "a")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(waiting, 0.3)
        for child in stopped:
            os.kill(child.process.pid, signal.SIGCONT)
        (grammar,) = await found.grammars(FLAT, 1, "a")
        assert grammar.plan
        assert sum(child.alive for child in stopped) <= 1

    in_processes(work)


def test_an_error_of_the_grammar_is_no_answer(server: Server) -> None:
    """Plain, as a stream, and in the Responses API: never text that is not JSON with the reason "stop"."""
    plain = ask(server, DROWNING, messages=text("hi"))
    assert plain.status_code == 500
    assert plain.json()["error"]["code"] == "grammar_error"
    stream = ask(server, DROWNING, messages=text("hi"), stream=True)
    events = [line.removeprefix("data: ") for line in stream.text.splitlines() if line.startswith("data: ")]
    assert json.loads(events[-1])["error"]["code"] == "grammar_error"
    assert '"finish_reason":"stop"' not in stream.text
    body = {
        "model": "nano",
        "input": "hi",
        "max_output_tokens": 60,
        "stream": True,
        "text": {"format": {"type": "json_schema", "name": "x", "schema": DROWNING}},
    }
    response = httpx.post(f"{server.url}/v1/responses", json=body, timeout=60)
    assert "response.failed" in response.text
    assert "response.completed" not in response.text


def test_bombs_are_refused_and_a_neighbor_is_answered(server: Server) -> None:
    named = dict(hostile_schemas())
    bombs = [named[name] for name in BOMBS]
    answers: list[httpx.Response] = []
    threads = [threading.Thread(target=lambda s=schema: answers.append(ask(server, s))) for schema in bombs]
    for thread in threads:
        thread.start()
    neighbor = ask(server, FLAT)
    for thread in threads:
        thread.join()
    assert neighbor.status_code == 200
    jsonschema.validate(json.loads(neighbor.json()["choices"][0]["message"]["content"]), FLAT)
    assert len(answers) == len(bombs)
    for answer in answers:
        assert answer.status_code == 400
        assert answer.json()["error"]["code"] == "invalid_schema"


@pytest.mark.slow
def test_sigterm_waits_for_no_schema(log: Path) -> None:
    with serving(log, "--drain-s", "2") as server:
        bombs = [schema for name, schema in hostile_schemas() if name.startswith(("defs used", "many patterns"))]
        threads = [threading.Thread(target=_try, args=(server, schema), daemon=True) for schema in bombs]
        for thread in threads:
            thread.start()
        time.sleep(0.3)
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 2 + 10  # the grace time, and a busy machine's own
    assert "Traceback" not in log.read_text()


def _try(server: Server, schema: Any) -> None:
    try:
        ask(server, schema)
    except httpx.HTTPError:  # the server went away, as it was told
        return


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_thousand_random_schemas_and_every_hostile_one(log: Path) -> None:
    """Each is refused, or answered by a document that `jsonschema` accepts, or ends with "length" or an error of ours."""
    checker = jsonschema.FormatChecker(["email", "uuid", "ipv4"])
    checker.checks("date", raises=ValueError)(_is_a_date)
    schemas = [(f"random {i}", random_schema(random.Random(i))) for i in range(1000)]
    schemas += [(name, schema) for name, schema in hostile_schemas() if _can_be_sent(schema)]
    counts: dict[str, int] = {}
    with serving(log) as server:
        for name, schema in schemas:
            answer = ask(server, schema, max_tokens=48)
            key = str(answer.status_code)
            if answer.status_code == 200:
                choice = answer.json()["choices"][0]
                key += f" {choice['finish_reason']}"
                if choice["finish_reason"] == "stop":
                    document = _exact(choice["message"]["content"])
                    if "twice" not in name:  # which the reference takes 2^n steps for
                        exact = _exact(json.dumps(schema))
                        with contextlib.suppress(RecursionError, re.error):  # the reference's: endless references, Unicode classes
                            jsonschema.Draft202012Validator(exact, format_checker=checker).validate(document)
            else:
                assert answer.status_code < 500 or answer.json()["error"]["code"] == "grammar_error", (name, answer.text)
                assert answer.json()["error"]["code"], name
            counts[key] = counts.get(key, 0) + 1
        assert server.stop() == 0
    print(counts)
    assert counts["200 stop"] > 700


def _is_a_date(value: object) -> bool:
    """RFC 3339 has a year 0000, a leap year, and Python has not."""
    return not isinstance(value, str) or bool(date.fromisoformat(f"0004{value[4:]}" if value.startswith("0000") else value))


def _exact(text: str) -> Any:
    """JSON with the numbers that are written: 0.0010000000000000000001 is more than 0.001, and a double of both is the same."""
    return json.loads(text, parse_float=Decimal)


def _can_be_sent(schema: Any) -> bool:
    try:
        return bool(json.dumps(schema, ensure_ascii=False).encode())
    except UnicodeEncodeError:
        return False
