"""Server-sent events, and noticing that nobody reads them any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

HUNG_UP = 499  # nginx' word for a client that left; nobody reads it but the log
# For the API's document: with `stream`, a 200 is no JSON but events, and this is one of them.
_EVENT = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "event": {"type": "string", "description": "The event's name, as the Responses API writes it."},
        "data": {"type": "string", "description": "JSON, or [DONE] at the end of a chat completion."},
    },
}
STREAMED: dict[int | str, dict[str, Any]] = {200: {"content": {"text/event-stream": {"schema": _EVENT}}}}


class PlainJSON(JSONResponse):
    """JSON in ASCII: half a character that a client sent back in an error breaks nothing."""

    def render(self, content: Any) -> bytes:
        return json.dumps(content, ensure_ascii=True, allow_nan=False, separators=(",", ":")).encode("ascii")


def event(data: Any, name: str | None = None) -> bytes:
    """One event; `name` is its type, as the Responses API writes it."""
    head = f"event: {name}\n" if name else ""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    return f"{head}data: {text}\n\n".encode("utf-8", "replace")


@asynccontextmanager
async def until_hung_up(receive: Receive, hang_up: Callable[[], None]) -> AsyncIterator[None]:
    """Call `hang_up` if the client disconnects while the block runs. The request's body must have been read."""

    async def watch() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        hang_up()

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with suppress(asyncio.CancelledError):
            await watching


class EventStream(Response):
    """A stream of events. `finish` is called in any case: at the end, on an error, and when the client hangs up."""

    media_type = "text/event-stream"

    def __init__(self, events: AsyncIterator[bytes], finish: Callable[[], None]) -> None:
        super().__init__(status_code=200, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._events, self._finish = events, finish

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG002
        try:
            async with until_hung_up(receive, self._finish):
                await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
                async for data in self._events:
                    await send({"type": "http.response.body", "body": data, "more_body": True})
                await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            self._finish()
