"""One request and its answer: the channel to the client, with limits on what comes in and notes of what went out."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import secrets
import time
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from smolvlm.serve.api.json_body import JsonBody
from smolvlm.serve.api.services import Services
from smolvlm.serve.api.sse import PlainJSON
from smolvlm.serve.errors import ServeError, unavailable

logger = logging.getLogger(__name__)

UNCOUNTED = ("/health", "/ready", "/metrics")  # they go on while the server drains
_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_LINGER_S = 2.0
_LEAST_BYTES_A_SECOND = 5000  # of a body after its first `body_timeout_s`: a byte now and then would last for days
_SHORT_BYTES = 1 << 20  # of a body that is thrown away before its refusal, so that the connection can go on


class Exchange:
    """What the gatekeeper gives to the application in the place of the server's own channel."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, found: Services) -> None:
        self.scope, self._receive, self._send, self._found = scope, receive, send, found
        given = header(scope, b"x-request-id")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        self._started_at = time.perf_counter()
        self._body_bytes = self._held_bytes = 0
        self._body_done = False
        self._json: JsonBody | None = None
        self._ignored = False
        self._status: int | None = None
        self.fault: ServeError | None = None
        self.facts: dict[str, Any] = {}
        scope["smolvlm.facts"] = self.facts
        scope["smolvlm.exchange"] = self

    @property
    def owner(self) -> str:
        return str(self.scope["smolvlm.owner"].name)

    def spent(self, seconds: float) -> None:
        """The event loop worked so long for this request."""
        if "smolvlm.owner" in self.scope:
            self._found.loop.spent(self.owner, seconds)

    def read_as_json(self) -> None:
        """Take the body as JSON while it comes, if its head says so; throw it away else. The application sees none of it."""
        if takes_json(self.scope):
            self._json = JsonBody(self._found.config.max_json_bytes)
        self._ignored = self._json is None

    async def json(self) -> Any:
        """The JSON of a body that has been read, None without one. Raises what `JsonBody.value` raises."""
        parser, self._json = self._json, None
        if parser is None or not self._body_bytes:
            return None

        def parse() -> tuple[Any, float]:
            began = time.thread_time()
            return parser.value(), time.thread_time() - began

        value, seconds = await asyncio.to_thread(parse)
        self.spent(seconds)
        return value

    @property
    def body_bytes(self) -> int:
        return self._body_bytes

    def release(self) -> None:
        """Nothing holds the body any more: its bytes are free for others."""
        self._found.bodies.give(self.owner, self._held_bytes)
        self._held_bytes = 0

    def check_length(self) -> None:
        """Refuse a body that says itself that it is too long. Raises ServeError 413."""
        if math.inf > self._length() > self._found.config.max_body_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next piece of the body. Raises ServeError: 413 beyond a limit, 429 beyond all bodies' budget, 408 when it does
        not come, 503 when the server ends before it has come."""
        if self._body_done:
            return await self._receive()
        await self._found.loop.turn(self.owner)
        try:
            message = await self._arriving()
            if message["type"] == "http.request":
                self._take(message)
        except ServeError as fault:
            self.fault = fault  # the framework turns whatever reading a body raises into a vague 400
            raise
        return message

    async def _arriving(self) -> Message:
        """The next message, unless it takes too long or the server ends."""
        if self._found.draining:  # since the piece before
            raise _shutting_down()
        patience_s = self._found.config.body_timeout_s
        dribbled_s = time.perf_counter() - self._started_at - self._body_bytes / _LEAST_BYTES_A_SECOND
        waiter = asyncio.ensure_future(self._receive())
        self._found.arriving.add(waiter)
        try:
            await asyncio.wait({waiter}, timeout=min(patience_s, max(0.0, patience_s - dribbled_s)))
            if waiter.cancelled():
                raise _shutting_down()
            if not waiter.done():
                raise ServeError(408, "the body of the request did not arrive in time.", code="body_timeout")
            return waiter.result()
        finally:
            self._found.arriving.discard(waiter)
            waiter.cancel()

    def _take(self, message: Message) -> None:
        body = message.get("body", b"")
        self._body_bytes += len(body)
        self._found.loop.received(self.owner, len(body))
        self._body_done = not message.get("more_body", False)
        if self._body_bytes > self._found.config.max_body_bytes:
            raise self._too_large()
        if self._ignored:
            message["body"] = b""
            return
        self._found.bodies.take(self.owner, len(body))
        self._held_bytes += len(body)
        if self._json is not None:
            self._json.feed(body)
            message["body"] = b""

    async def send(self, message: Message) -> None:
        if self.fault is not None and self._status is None:
            raise self.fault
        if message["type"] == "http.response.start":
            self._status = message["status"]
            message["headers"] = [*message.get("headers", []), (b"x-request-id", self.request_id.encode())]
        await self._send(message)

    async def refuse(self, error: ServeError) -> None:
        """Answer with the error, unless an answer has begun."""
        if self._status is not None:
            return
        self.fault = None
        patient = error.status != 408 and not header(self.scope, b"expect")
        if patient and self._length() <= _SHORT_BYTES:
            await self._let_finish()
        unread = not self._body_done
        reply = PlainJSON(error.body(), error.status, error.headers | ({"Connection": "close"} if unread else {}))
        await self.send({"type": "http.response.start", "status": reply.status_code, "headers": reply.raw_headers})
        await self.send({"type": "http.response.body", "body": reply.body, "more_body": True})
        if unread and patient:
            await self._let_finish()
        await self.send({"type": "http.response.body", "body": b"", "more_body": False})

    def _length(self) -> float:
        """What the head says of the body's length, in bytes."""
        length = header(self.scope, b"content-length")
        return int(length[:18]) if length.isdecimal() else math.inf

    async def _let_finish(self) -> None:
        """Throw away what the client still sends, for a moment: a socket closed on it would take the answer along."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._discard(), _LINGER_S)

    async def _discard(self) -> None:
        known = "smolvlm.owner" in self.scope
        while not self._body_done:
            if known:
                await self._found.loop.turn(self.owner)
            message = await self._receive()
            if known:
                self._found.loop.received(self.owner, len(message.get("body", b"")))
            self._body_done = not message.get("more_body", False)  # a disconnect has none

    def finish(self) -> None:
        """The answer is out: one line in the log."""
        if self._held_bytes:
            self.release()
        seconds = time.perf_counter() - self._started_at
        route = getattr(self.scope.get("route"), "path", "unmatched")
        self._found.metrics.requests.labels(route, str(self._status or 0)).inc()
        self._found.metrics.duration.labels(route).observe(seconds)
        owner = self.scope.get("smolvlm.owner")
        method = self.scope["method"] if self.scope["method"] in _METHODS else "other"
        level = logging.DEBUG if self.scope["path"] in UNCOUNTED else logging.INFO
        logger.log(
            level,
            "request",
            extra={
                "facts": {
                    "request_id": self.request_id,
                    "method": method,
                    "route": route,
                    "status": self._status or 0,
                    "ms": round(1000 * seconds, 1),
                    "key": owner.name if owner else None,
                    "body_bytes": self._body_bytes,
                    **self.facts,
                }
            },
        )

    def _too_large(self) -> ServeError:
        return ServeError(
            413,
            f"the request is larger than {self._found.config.max_body_bytes} bytes; send smaller media, or upload them one by one.",
            code="request_too_large",
        )


def _shutting_down() -> ServeError:
    return unavailable("the server is shutting down; ask another one, or again later.", "shutting_down")


def takes_json(scope: Scope) -> bool:
    """Whether the request's head says that its body is JSON, or says nothing."""
    kind = header(scope, b"content-type").partition(";")[0].strip().lower()
    return not kind or kind == "application/json" or (kind.startswith("application/") and kind.endswith("+json"))


def header(scope: Scope, name: bytes) -> str:
    """A header of the request, "" without one."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
