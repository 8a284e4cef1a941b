"""The outermost layer: who asks, by which name, may they, how much may they send.

It is plain ASGI: it decides before a byte of the body is read, and it lasts as long as a streamed answer does. Where keys are
used, everything needs one but what `_PUBLIC` names, whatever the path looks like.
"""

from __future__ import annotations

import base64
import binascii
import logging

from starlette.types import ASGIApp, Receive, Scope, Send

from smolvlm.listening import Callers
from smolvlm.listening.callers import SAFE_METHODS
from smolvlm.serve.api.exchange import UNCOUNTED, Exchange, header
from smolvlm.serve.api.keys import KeyOwner
from smolvlm.serve.api.loop_share import Measured
from smolvlm.serve.api.services import Services
from smolvlm.serve.api.wording import short
from smolvlm.serve.errors import ServeError, as_serve_error, unavailable

logger = logging.getLogger(__name__)

_ASKING = ("/v1/chat/completions", "/v1/responses")
_PUBLIC = ("/", "/health", "/ready")  # exactly these paths
_BROWSED = ("/docs", "/openapi.json", "/metrics")  # a browser or a collector may send the key as a password, to read


class Gatekeeper:
    """Wraps the application of one server."""

    def __init__(self, app: ASGIApp, found: Services) -> None:
        self._app, self._found = app, found
        config = found.config
        self._callers = Callers(config.host, config.allowed_hosts, config.cors_origin)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})  # there is none here
            return
        exchange = Exchange(scope, receive, send, self._found)
        counted = scope["path"] not in UNCOUNTED
        self._found.in_flight += counted
        try:
            await Measured(self._answer(exchange), exchange.spent)
        finally:
            self._found.in_flight -= counted
            exchange.finish()

    async def _answer(self, exchange: Exchange) -> None:
        try:
            await self._admit(exchange)
        except ServeError as error:
            await exchange.refuse(error)
        except Exception as error:
            if exchange.fault is not None:
                await exchange.refuse(exchange.fault)
                return
            logger.exception("a request failed", extra={"facts": {"request_id": exchange.request_id}})
            await exchange.refuse(as_serve_error(error))

    async def _admit(self, exchange: Exchange) -> None:
        """Hand the request to the application. Raises ServeError for one that is not answered."""
        found, scope = self._found, exchange.scope
        refusal = self._callers.refusal(scope["method"], scope["headers"])
        if refusal is not None:
            code = "host_not_allowed" if refusal.status == 421 else "origin_not_allowed"
            raise ServeError(refusal.status, f"{refusal.sentence[:1].upper()}{refusal.sentence[1:]}", code=code)
        owner = scope["smolvlm.owner"] = self._identify(scope)
        if scope["method"] in SAFE_METHODS:
            # HEAD is GET without its body, which the server's protocol leaves out by the method that it reads in `scope`.
            read = {**scope, "method": "GET"} if scope["method"] == "HEAD" else scope
            try:
                await self._app(read, exchange.receive, exchange.send)
            finally:
                scope["route"] = read.get("route")
            return
        found.loop.request(owner.name)
        await found.loop.turn(owner.name)
        if found.draining:
            raise unavailable("the server is shutting down; ask another one, or again later.", "shutting_down")
        if scope["method"] == "POST" and not found.backend.ready:
            raise unavailable("the model is warming up; try again in a moment.", "warming_up", 1)
        exchange.check_length()
        if (encoding := header(scope, b"content-encoding").strip().lower()) not in ("", "identity"):
            problem = f"the body came with the header Content-Encoding: {short(encoding)}; send it without compression."
            raise ServeError(415, problem, code="unsupported_media_type")
        if scope["path"] in _ASKING:
            found.backend.check_room()  # before the body is parsed: under load most of the work would be for refusals
            exchange.read_as_json()
        if scope["method"] != "POST":
            await self._app(scope, exchange.receive, exchange.send)
            return
        with found.quotas.request(owner.name, owner.rate, owner.concurrency):
            await self._app(scope, exchange.receive, exchange.send)

    def _identify(self, scope: Scope) -> KeyOwner:
        """The owner of the key. Raises ServeError 401 where one is needed."""
        if self._found.keys is None:
            client = scope.get("client")
            return KeyOwner(client[0] if client else "anonymous")
        path, safe = scope["path"], scope["method"] in SAFE_METHODS
        if path in _PUBLIC and safe:
            return KeyOwner("nobody")
        browsed = path in _BROWSED and safe
        owner = self._found.keys.owner(_key(header(scope, b"authorization"), browsed))
        if owner is None:
            ask_for = 'Bearer, Basic realm="smolvlm: any name, and the key as password"' if browsed else "Bearer"
            raise ServeError(
                401,
                "A valid API key is needed: send the header Authorization: Bearer KEY.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": ask_for},
            )
        return owner


def _key(given: str, or_password: bool) -> str:
    """The key in an Authorization header, "" without one."""
    scheme, _, token = given.partition(" ")
    if scheme.lower() == "bearer":
        return token.strip()
    if scheme.lower() == "basic" and or_password:
        try:
            return base64.b64decode(token.strip(), validate=True).decode("latin-1").partition(":")[2]
        except (binascii.Error, ValueError):
            return ""
    return ""
