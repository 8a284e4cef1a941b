"""What the faults have in common: their size, questions with known answers, and the sentence that one was not survived."""

from __future__ import annotations

import base64
import functools
import io
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import httpx
import numpy as np
from PIL import Image

import smolvlm
from smolvlm.synth.benchmark import items

CHAT = "/v1/chat/completions"
NEW_TOKENS = 48


@dataclass(frozen=True)
class Scale:
    """How much of everything: requests in turn, clients at once, slow clients, open connections."""

    requests: int = 100
    clients: int = 32
    slow: int = 500
    connections: int = 10_000
    patience_s: float = 5.0  # what the server gives slow heads and bodies
    idle_s: float = 60.0  # and connections that say nothing: long enough to hold them all at once


# A fault works in a folder of its own and says what happened, sentence by sentence.
Fault: TypeAlias = Callable[[Path, Scale], Iterator[str]]


@dataclass(frozen=True)
class Known:
    """A question about a picture, and what the library answers when it is asked alone."""

    picture: bytes
    text: str
    answer: str
    options: tuple[tuple[str, Any], ...]  # of the request


def expect(true: bool, otherwise: str) -> None:
    """Raise AssertionError: the server did not keep its word."""
    if not true:
        raise AssertionError(otherwise)


@functools.cache
def known_questions(count: int, tokens: int | None = None) -> tuple[Known, ...]:
    """Questions that nano was not trained on, each about another picture; with `tokens`, the answer goes on for so many."""
    model = smolvlm.load("nano")
    more = {} if tokens is None else {"ignore_eos": True, "loop_guard": False}
    found = []
    for item in items("caption", count):
        picture, text = _png(item.sample.frames[0]), item.question.text
        answer = model.ask(picture, text, max_new_tokens=tokens or NEW_TOKENS, **more).text
        found.append(Known(picture, text, answer, (("max_tokens", tokens or NEW_TOKENS), *more.items())))
    return tuple(found)


def fresh_picture(number: int, large: bool = False) -> bytes:
    """The `number`-th of pictures that no cache knows: noise, a PNG of 5 MB; a large one has 20 and takes longer to decode."""
    size = (2000, 3000) if large else (1000, 1500)
    return _png(np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8))


def _png(pixels: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def body(picture: bytes | None, text: str = "What is this?", **fields: Any) -> dict[str, Any]:
    """A request of chat completions; four tokens where `fields` do not say otherwise."""
    content: Any = text
    if picture is not None:
        url = f"data:image/png;base64,{base64.b64encode(picture).decode()}"
        content = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": text}]
    return {"model": "nano", "max_tokens": 4, "messages": [{"role": "user", "content": content}], **fields}


def endless(text: str, tokens: int = 1500, **fields: Any) -> dict[str, Any]:
    """A streamed answer that goes on to its last token."""
    return body(None, text, stream=True, max_tokens=tokens, ignore_eos=True, loop_guard=False, **fields)


def chat(url: str, request: dict[str, Any]) -> httpx.Response:
    return httpx.post(url + CHAT, json=request, timeout=120, trust_env=False)


def asked(url: str, question: Known) -> str:
    """The server's answer, of a response that must be 200."""
    response = chat(url, body(question.picture, question.text, **dict(question.options)))
    expect(response.status_code == 200, f"a question was answered with {response.status_code}: {response.text[:200]}")
    return str(response.json()["choices"][0]["message"]["content"])


def raw_request(request: dict[str, Any]) -> bytes:
    """The bytes of an HTTP request."""
    data = json.dumps(request).encode()
    return (
        f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
    )
