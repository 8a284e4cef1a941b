"""What stands before Gradio: other sites' requests and those that would make it fetch an address end here, and every answer
gets our headers."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias, cast

from smolvlm.listening import Callers

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

MAX_QUESTION_BYTES = 4 * 1024**2  # of a request that is no upload: words and settings

# The browser itself sees to it that the page loads from and sends to nowhere else, whatever a library of it would like.
# Gradio's scripts need inline code and eval; data: and blob: are previews of pictures.
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
        b"base-uri 'self'; form-action 'self'; frame-ancestors 'self'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Gate:
    """An ASGI application around the page's."""

    def __init__(self, app: App, callers: Callers) -> None:
        self._app, self._callers = app, callers

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._callers.refusal(scope.get("method", "POST"), scope["headers"])
        if scope["type"] != "http":
            if refusal is None:
                await self._app(scope, receive, send)
            else:
                await send({"type": "websocket.close", "code": 1008})
            return

        async def send_more(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        if refusal is not None:
            await _refuse(send_more, refusal.status, refusal.sentence)
            return
        if scope["method"] == "POST" and not scope["path"].rstrip("/").endswith("/upload"):
            body = await _read(receive)
            if body is None:
                await _refuse(send_more, 413, "the request is too large; upload files, and shorten the text.")
                return
            if names_an_address(body):
                await _refuse(send_more, 400, "addresses are not fetched here; upload the file.")
                return
            receive = _again(body, receive)
        await self._app(scope, receive, send_more)


def names_an_address(body: bytes) -> bool:
    """Whether a JSON body gives an address as the path of a file, which Gradio would go and fetch."""
    try:
        left = [json.loads(body)]
    except (ValueError, RecursionError):
        return False  # Gradio refuses it too
    while left:
        value = left.pop()
        if isinstance(value, dict):
            if isinstance(path := value.get("path"), str) and "://" in path:
                return True
            left.extend(value.values())
        elif isinstance(value, list):
            left.extend(value)
    return False


async def _read(receive: Receive) -> bytes | None:
    """The whole body, or None when it is too large."""
    body = b""
    while True:
        message = await receive()
        body += cast(bytes, message.get("body", b""))
        if len(body) > MAX_QUESTION_BYTES:
            return None
        if not message.get("more_body"):
            return body


def _again(body: bytes, receive: Receive) -> Receive:
    """A `receive` that gives the body once more, and then what the connection gives."""
    given = False

    async def replay() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay


async def _refuse(send: Send, status: int, sentence: str) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps({"detail": sentence}).encode()})
