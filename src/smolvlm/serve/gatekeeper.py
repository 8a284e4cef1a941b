"""The outermost layer: who asks, may they, how much may they send; and one line in the log for each request.

It is plain ASGI: it decides before a byte of the body is read, and it lasts as long as a streamed answer does.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import re
import secrets
import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from smolvlm.serve.errors import ServeError, as_serve_error, unavailable
from smolvlm.serve.keys import KeyOwner
from smolvlm.serve.services import Services
from smolvlm.serve.sse import PlainJSON

logger = logging.getLogger(__name__)

_REQUEST_ID = re.compile(r"[A-Za-z0-9_.-]{1,64}", re.ASCII)
_LINGER_S = 2.0
_LEAST_BYTES_A_SECOND = 5000  # of a body after its first `body_timeout_s`: a byte now and then would last for days
_SHORT_BYTES = 1 << 20  # of a body that is thrown away before its refusal, so that the connection can go on
_ASKING = ("/v1/chat/completions", "/v1/responses")
_UNCOUNTED = ("/health", "/ready", "/metrics")  # they go on while the server drains


class Gatekeeper:
    """Wraps the application of one server."""

    def __init__(self, app: ASGIApp, found: Services) -> None:
        self._app, self._found = app, found

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._found)
        counted = scope["path"] not in _UNCOUNTED
        self._found.in_flight += counted
        try:
            await self._answer(exchange)
        finally:
            self._found.in_flight -= counted
            exchange.log()

    async def _answer(self, exchange: _Exchange) -> None:
        found, scope = self._found, exchange.scope
        try:
            if not scope["path"].startswith("/v1/"):
                scope["smolvlm.owner"] = KeyOwner("nobody")
                await self._app(scope, exchange.receive, exchange.send)
                return
            owner = scope["smolvlm.owner"] = self._identify(scope)
            if scope["method"] != "POST":
                await self._app(scope, exchange.receive, exchange.send)
                return
            if found.draining:
                raise unavailable("the server is shutting down; ask another one, or again later.", "shutting_down")
            if not found.backend.ready:
                raise unavailable("the model is warming up; try again in a moment.", "warming_up", 1)
            exchange.check_length()
            if scope["path"] in _ASKING:
                found.backend.check_room()  # before the body is parsed: under load most of the work would be for refusals
            with found.quotas.request(owner.name, owner.rate, owner.concurrency):
                await self._app(scope, exchange.receive, exchange.send)
        except ServeError as error:
            await exchange.refuse(error)
        except Exception as error:
            if exchange.fault is not None:
                await exchange.refuse(exchange.fault)
                return
            logger.exception("a request failed", extra={"facts": {"request_id": exchange.request_id}})
            await exchange.refuse(as_serve_error(error))

    def _identify(self, scope: Scope) -> KeyOwner:
        """The owner of the bearer token. Raises ServeError 401."""
        if self._found.keys is None:
            client = scope.get("client")
            return KeyOwner(client[0] if client else "anonymous")
        given = _header(scope, b"authorization")
        scheme, _, token = given.partition(" ")
        owner = self._found.keys.owner(token.strip()) if scheme.lower() == "bearer" else None
        if owner is None:
            raise ServeError(401, "A valid API key is needed: send the header Authorization: Bearer KEY.", code="invalid_api_key",
                             headers={"WWW-Authenticate": "Bearer"})  # fmt: skip
        return owner


class _Exchange:
    """One request and its answer: the channel to the client, with limits on what comes in and notes of what went out."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, found: Services) -> None:
        self.scope, self._receive, self._send, self._found = scope, receive, send, found
        given = _header(scope, b"x-request-id")
        self.request_id = given if _REQUEST_ID.fullmatch(given) else f"req-{secrets.token_hex(12)}"
        self._started_at = time.perf_counter()
        self._body_bytes = 0
        self._body_done = False
        self._status: int | None = None
        self.fault: ServeError | None = None
        self.facts: dict[str, Any] = {}
        scope["smolvlm.facts"] = self.facts

    def _failed(self, fault: ServeError) -> ServeError:
        """Remember what was wrong with the body: the framework turns whatever reading it raises into a vague 400."""
        self.fault = fault
        return fault

    def check_length(self) -> None:
        """Refuse a body that says itself that it is too long. Raises ServeError 413."""
        if math.inf > self._length() > self._found.config.max_body_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next piece of the body. Raises ServeError 413 beyond the limit, 408 when it does not come."""
        if self._body_done:
            return await self._receive()
        patience_s = self._found.config.body_timeout_s
        dribbled_s = time.perf_counter() - self._started_at - self._body_bytes / _LEAST_BYTES_A_SECOND
        try:
            message = await asyncio.wait_for(self._receive(), min(patience_s, max(0.0, patience_s - dribbled_s)))
        except asyncio.TimeoutError:
            late = ServeError(408, "the body of the request did not arrive in time.", code="body_timeout")
            raise self._failed(late) from None
        if message["type"] == "http.request":
            self._body_bytes += len(message.get("body", b""))
            self._body_done = not message.get("more_body", False)
            if self._body_bytes > self._found.config.max_body_bytes:
                raise self._failed(self._too_large())
        return message

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
        patient = error.status != 408 and not _header(self.scope, b"expect")
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
        length = _header(self.scope, b"content-length")
        return int(length[:18]) if length.isdecimal() else math.inf

    async def _let_finish(self) -> None:
        """Throw away what the client still sends, for a moment: a socket closed on it would take the answer along."""
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._discard(), _LINGER_S)

    async def _discard(self) -> None:
        while not self._body_done:
            message = await self._receive()
            self._body_done = not message.get("more_body", False)  # a disconnect has none

    def log(self) -> None:
        seconds = time.perf_counter() - self._started_at
        route = getattr(self.scope.get("route"), "path", "unmatched")
        self._found.metrics.requests.labels(route, str(self._status or 0)).inc()
        self._found.metrics.duration.labels(route).observe(seconds)
        owner = self.scope.get("smolvlm.owner")
        level = logging.DEBUG if self.scope["path"] in _UNCOUNTED else logging.INFO
        logger.log(level, "request", extra={"facts": {
            "request_id": self.request_id, "method": self.scope["method"], "route": route, "status": self._status or 0,
            "ms": round(1000 * seconds, 1), "key": owner.name if owner else None, "body_bytes": self._body_bytes, **self.facts,
        }})  # fmt: skip

    def _too_large(self) -> ServeError:
        return ServeError(413, f"the request is larger than {self._found.config.max_body_bytes} bytes; send smaller media, or "
                          "upload them one by one.", code="request_too_large")  # fmt: skip


def _header(scope: Scope, name: bytes) -> str:
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), "")
