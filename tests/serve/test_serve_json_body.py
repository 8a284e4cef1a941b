"""A request's JSON: the same value as the standard parser's, or a refusal before it costs anything."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import threading
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import httpx
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers_serve import Server, serving, text
from smolvlm.serve.api.bodies import BodyBudget
from smolvlm.serve.api.json_body import MOST_DEPTH, MOST_VALUES, JsonBody
from smolvlm.serve.errors import ServeError

CHAT = "/v1/chat/completions"
LARGE = base64.b64encode(random.Random(0).randbytes(300_000)).decode()


def read(body: bytes, piece: int = 65536, most: int = 1 << 20) -> Any:
    parser = JsonBody(most)
    for start in range(0, len(body), piece):
        parser.feed(body[start : start + piece])
    return parser.value()


TREES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text()
    | st.sampled_from(["data:image/png;base64," + LARGE[:6000], '"', "\\", '\\"', "smolvlm-", LARGE[:5000], "x " * 3000]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.sampled_from(["url", "image_url"]), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None)
@given(tree=TREES, piece=st.integers(1, 9000), ascii=st.booleans())
def test_what_is_small_is_what_the_standard_parser_says(tree: Any, piece: int, ascii: bool) -> None:
    """Wherever the pieces are cut. Long base64 where no medium may stand is refused; all else is equal."""
    body = json.dumps({"url": tree}, ensure_ascii=ascii).encode("utf-8", "surrogatepass")
    refused = None
    try:
        made = read(body, piece)
    except ServeError as error:
        refused = error
    if refused is None:
        assert made == json.loads(body)
    else:
        assert refused.status == 413
        assert LARGE[:4000] in body.decode()


@pytest.mark.parametrize("piece", [4097, 65536])
@pytest.mark.parametrize("write", ["plain", "slashes", "dotnet"])
def test_media_of_any_size(piece: int, write: str) -> None:
    """Also as PHP (`\\/`) and .NET (`\\u002B`) write them."""
    tree = {"messages": [{"content": [{"image_url": {"url": f"data:image/png;base64,{LARGE}"}, "é": 'x"\\'}]}], "data": LARGE}
    body = json.dumps(tree)
    body = body.replace("/", "\\/") if write == "slashes" else body.replace("+", "\\u002B") if write == "dotnet" else body
    assert read(body.encode(), piece, most=6000) == tree


BOMBS: dict[str, tuple[bytes, int, str]] = {
    "empty lists": (b'{"x":[' + b"[]," * 400_000 + b"1]}", 413, "values"),
    "empty objects": (b'{"x":[' + b"{}," * 400_000 + b"1]}", 413, "values"),
    "numbers": (b'{"x":[' + b"1," * 900_000 + b"1]}", 413, "values"),
    "fields": (b"{" + b",".join(b'"%d":0' % i for i in range(60_000)) + b"}", 413, "values"),
    "long text": (b'{"x":"' + b"a b " * 400_000 + b'"}', 413, "bytes"),
    "escapes": (b'{"x":"' + b'\\"' * 900_000 + b'"}', 413, "bytes"),
    "spaces": (b" " * 1_200_000 + b"{}", 413, "bytes"),
    "text like base64": (b'{"messages":[{"content":"' + b"a" * 3_000_000 + b'"}]}', 413, r"messages\[0\]\.content"),
    "text like a data URL": (b'{"content":"data:' + b" x" * 900_000 + b'"}', 413, "content"),
    "a long name": (b'{"' + b"a" * 3_000_000 + b'":1}', 413, "name of a field"),
    "depth": (b"[" * 100_000, 400, "deeper"),
    "depth of objects": (b'{"a":' * 100_000, 400, "deeper"),
    "closed at once": (b"]" * 900_000, 400, "closed"),
    "a long integer": (b'{"x":' + b"9" * 900_000 + b"}", 400, "digits"),
    "a large number": (b'{"x":1e999999}', 400, "larger"),
    "NaN": (b'{"x":NaN}', 400, "NaN"),
    "infinity": (b'{"x":-Infinity}', 400, "Infinity"),
    "twice": (b'{"model":"a","model":"b"}', 400, "'model' stands twice"),
    "twice among many": (b"{" + b",".join(b'"%d":0' % (i % 20_000) for i in range(20_001)) + b"}", 400, "'0' stands twice"),
    "UTF-16": ('{"x":1}'.encode("utf-16"), 400, "UTF-8"),
    "no UTF-8": (b'{"x":"\xff"}', 400, "UTF-8"),
    "half a character": (b'{"x":"\xed\xa0\x80"}', 400, "UTF-8"),
    "cut off": (b'{"x":[1,', 400, "valid JSON"),
    "a quote in a medium": (b'{"url":"data:' + b"A" * 5000 + b'\\""}', 400, "quotation"),
    "escapes in a medium": (b'{"url":"data:' + b"\\u0041" * 900_000 + b'"}', 400, "base64"),
    "bytes in a medium": (b'{"url":"data:' + b"A" * 5000 + b"\xc3\xa9" * 5000 + b'"}', 400, "base64"),
    "a medium alone": (b'"data:' + b"A" * 5000 + b'"', 400, "object"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_refused_for_nothing(name: str) -> None:
    """Each in less than a second of this thread's time, and in few times the memory that was sent of it."""
    body, status, word = BOMBS[name]
    began = time.thread_time()
    with pytest.raises(ServeError, match=word) as caught:
        read(body)
    assert caught.value.status == status
    assert time.thread_time() - began < 1
    assert len(str(caught.value)) < 300
    tracemalloc.start()
    with pytest.raises(ServeError):
        read(body)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 30_000_000


def test_as_much_as_may_be() -> None:
    assert len(read(b"[" + b"[]," * (MOST_VALUES // 2 - 2) + b"0]")) == MOST_VALUES // 2 - 1
    assert read(b"[" * MOST_DEPTH + b"]" * MOST_DEPTH)
    nothing = '{"x": "\\u0000"}'
    assert read(nothing.encode()) == {"x": "\0"}
    assert read(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}


def test_the_budget_of_all_bodies() -> None:
    budget = BodyBudget(1000, 300)
    budget.take("a", 500)
    with pytest.raises(ServeError, match="of this key") as caught:
        budget.take("a", 1)
    assert (caught.value.status, caught.value.code) == (429, "bodies_full")
    budget.take("b", 400)
    with pytest.raises(ServeError, match="as much memory as they may; try"):
        budget.take("c", 101)
    budget.give("a", 500)
    budget.take("c", 101)
    assert BodyBudget(10, 300)._share_bytes == 300  # one body always fits


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("json") / "log", "--max-bodies-bytes", "110000000") as running:
        yield running


@pytest.mark.slow
def test_a_bomb_disturbs_nobody(own: Server) -> None:
    """Forty megabytes of `[],` in a field that nobody reads, four at a time: /health goes on answering, memory stays."""
    bomb = b'{"model":"nano","messages":[{"role":"user","content":"x"}],"x":[' + b"[]," * 13_000_000 + b"1]}"
    process = psutil.Process(own.process.pid)
    httpx.get(f"{own.url}/health")
    before = process.memory_info().rss
    replies: list[int] = []

    def send() -> None:
        try:
            replies.append(httpx.post(own.url + CHAT, content=bomb, headers={"Content-Type": "application/json"}).status_code)
        except httpx.TransportError:
            replies.append(0)  # the connection was closed before all was sent

    sending = [threading.Thread(target=send) for _ in range(4)]
    used = sum(process.cpu_times()[:2])
    for thread in sending:
        thread.start()
    slowest = 0.0
    while any(thread.is_alive() for thread in sending):
        began = time.monotonic()
        assert httpx.get(f"{own.url}/health", timeout=30).status_code == 200
        slowest = max(slowest, time.monotonic() - began)
    assert set(replies) <= {413, 0}
    assert 413 in replies
    assert sum(process.cpu_times()[:2]) - used < 6
    assert slowest < 5
    assert process.memory_info().rss - before < 60_000_000


@pytest.mark.slow
def test_bodies_in_flight_have_a_budget(own: Server) -> None:
    """Each is less than a request may have; together they are more than all may. The refused one says when to come again."""
    head = b'{"model":"nano","messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,'

    async def ask(ready: asyncio.Event, go_on: asyncio.Event) -> httpx.Response:
        async def pieces() -> Any:
            yield head
            for _ in range(45):
                yield b"A" * 1_000_000
            ready.set()
            await go_on.wait()
            yield b'"}}]}]}'

        async with httpx.AsyncClient(timeout=60) as client:
            return await client.post(own.url + CHAT, content=pieces(), headers={"Content-Type": "application/json"})

    async def run() -> list[httpx.Response]:
        ready, go_on = [asyncio.Event() for _ in range(2)], asyncio.Event()
        held = [asyncio.create_task(ask(event, go_on)) for event in ready]
        for event in ready:
            await event.wait()
        always = asyncio.Event()
        always.set()
        third = await ask(asyncio.Event(), always)
        go_on.set()
        return [third, *await asyncio.gather(*held)]

    refused, *others = asyncio.run(run())
    assert refused.status_code == 429, refused.text
    assert refused.json()["error"]["code"] == "bodies_full"
    assert int(refused.headers["retry-after"]) >= 1
    assert [reply.status_code for reply in others] == [400, 400]  # no picture, but they were read
    again = httpx.post(own.url + CHAT, json={"model": "nano", "messages": text("x"), "max_tokens": 1})
    assert again.status_code == 200
