"""Routes whose body is JSON that may hold pictures and videos: read within limits, parsed beside the event loop."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request
from fastapi.routing import APIRoute
from starlette.requests import ClientDisconnect
from starlette.responses import Response

from smolvlm.serve.api.exchange import Exchange, takes_json
from smolvlm.serve.api.request_errors import invalid_body, not_json
from smolvlm.serve.api.sse import HUNG_UP
from smolvlm.serve.api.wording import shape_of
from smolvlm.serve.dialects import DIALECTS

_BODY = "smolvlm.body"


class _Read(Request):
    """A request whose body has been read. The framework asks for the bytes only to see whether there are any."""

    async def body(self) -> bytes:
        return b"{}" if self.scope["smolvlm.exchange"].body_bytes else b""

    async def json(self) -> Any:
        return self.scope[_BODY]


class JsonRoute(APIRoute):
    """The gatekeeper has turned on `Exchange.read_as_json` for these paths."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def read_first(request: Request) -> Response:
            exchange: Exchange = request.scope["smolvlm.exchange"]
            try:
                async for _ in request.stream():
                    pass
            except ClientDisconnect:
                return Response(status_code=HUNG_UP)
            request.scope[_BODY] = body = await exchange.json()
            kind = request.headers.get("content-type", "")
            if exchange.body_bytes and not (kind and takes_json(request.scope)):
                raise not_json(kind)
            if not isinstance(body, dict):
                raise invalid_body(shape_of(body) if exchange.body_bytes else "empty", DIALECTS[self.path])
            return await handle(_Read(request.scope, request.receive))

        return read_first


def release_body(request: Request) -> None:
    """Let go of the body, of which nothing is needed any more: pictures as text are megabytes."""
    body = request.scope.pop(_BODY, None)
    if isinstance(body, dict):
        body.clear()  # the framework holds it until the answer is out
    exchange: Exchange = request.scope["smolvlm.exchange"]
    exchange.release()
