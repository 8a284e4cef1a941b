"""A gate that runs in an event loop of its own, a remote server that misbehaves by path, and media as requests hold them."""

from __future__ import annotations

import asyncio
import base64
import concurrent.futures
import dataclasses
import http.server
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from helpers_media import encoded, photo
from smolvlm.config import ProcessorConfig
from smolvlm.media.limits import STRANGERS
from smolvlm.media.sandbox.gate import MediaGate, MediaLimits, RemotePolicy

T = TypeVar("T")

SMALL = ProcessorConfig(tile_size=64, longest_edge=128, video_longest_edge=64)
PNG = encoded(photo(30, 20), "PNG")
SMALL_SOURCE = dataclasses.replace(STRANGERS, max_image_pixels=4_000_000, max_video_pixels=4_000_000)
LIMITS = MediaLimits(source=SMALL_SOURCE, workers=2, decode_s=10, max_media=3)


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


class Loop:
    """An event loop in a thread; `loop(coroutine)` waits for its result."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self._thread.start()

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        return self.begin(work).result(60)

    def begin(self, work: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self.loop)

    def close(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(5)
        self.loop.close()


@contextmanager
def running_gate(
    limits: MediaLimits | None = None, policy: RemotePolicy | None = None, *, config: ProcessorConfig = SMALL, resolver: Any = None
) -> Iterator[tuple[Loop, MediaGate]]:
    loop = Loop()

    async def make() -> MediaGate:
        extra = {} if resolver is None else {"resolver": resolver}
        gate = MediaGate(config, limits, policy, **extra)
        await gate.start()
        return gate

    gate = loop(make())
    try:
        yield loop, gate
    finally:
        loop(gate.close())
        loop.close()


class BadServer(http.server.BaseHTTPRequestHandler):
    """Answers by path; `{port}` in a redirect is this server's own. `seen` collects (path, Host) of every request."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]
    redirects: dict[str, str]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["Host"]))
        self.close_connection = True
        try:
            if self.path in self.redirects:
                port = self.server.server_address[1]
                self._head(302, {"Location": self.redirects[self.path].replace("{port}", str(port))})
                return
            getattr(self, "answer_" + self.path.lstrip("/").replace(".", "_"), self.answer_photo_png)()
        except OSError:
            pass  # the client has seen enough

    def _head(self, status: int = 200, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()

    def answer_photo_png(self) -> None:
        self._head(200, {"Content-Type": "image/png"})
        self.wfile.write(PNG)

    def answer_wrong_type(self) -> None:
        self._head(200, {"Content-Type": "text/html; charset=utf-7"})
        self.wfile.write(PNG)

    def answer_html(self) -> None:
        self._head(200, {"Content-Type": "image/png"})
        self.wfile.write(b"<!doctype html><img src=file:///etc/passwd>")

    def answer_missing(self) -> None:
        self._head(404)

    def answer_empty(self) -> None:
        self._head(200, {"Content-Length": "0"})

    def answer_lies(self) -> None:
        self._head(200, {"Content-Length": str(10**15)})
        self.wfile.write(PNG)

    def answer_digits(self) -> None:
        self._head(200, {"Content-Length": "9" * 5000})

    def answer_short(self) -> None:
        self._head(200, {"Content-Length": str(len(PNG) + 50)})
        self.wfile.write(PNG)

    def answer_endless(self) -> None:
        self._head()
        while True:
            self.wfile.write(bytes(1 << 16))

    def answer_gzip(self) -> None:
        import gzip

        self._head(200, {"Content-Encoding": "gzip"})
        self.wfile.write(gzip.compress(bytes(50_000_000)))

    def answer_slow_body(self) -> None:
        self._head()
        self._drip()

    def answer_slow_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._drip()

    def answer_silent(self) -> None:
        time.sleep(6)

    def answer_continue_flood(self) -> None:
        while True:
            self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n" * 100)
            time.sleep(0.01)

    def answer_huge_header(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Huge: " + b"a" * 10_000_000 + b"\r\n\r\n")

    def answer_many_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\n" + b"X-Many: a\r\n" * 500_000 + b"\r\n")

    def answer_bad_chunks(self) -> None:
        self._head(200, {"Transfer-Encoding": "chunked"})
        self.wfile.write(b"FFFFFFFFFFFFFFFFF\r\n" + PNG)

    def answer_no_http(self) -> None:
        self.wfile.write(b"\x16\x03\x01 SSH-2.0 220 smtp ready\r\n" * 10)

    def answer_two_lengths(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 900\r\n\r\n" + PNG)

    def _drip(self) -> None:
        for _ in range(60):
            self.wfile.write(b"x")
            self.wfile.flush()
            time.sleep(0.1)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def bad_server(address: str, redirects: dict[str, str] | None = None) -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """Its port, and what it was asked."""
    seen: list[tuple[str, str]] = []
    handler = type("Handler", (BadServer,), {"seen": seen, "redirects": redirects or {}})
    with http.server.ThreadingHTTPServer((address, 0), handler) as httpd:
        httpd.daemon_threads = True
        threading.Thread(target=httpd.serve_forever, args=(0.02,), daemon=True).start()  # looks for its end so often
        yield httpd.server_address[1], seen
        httpd.shutdown()
