"""Clients of a chat server: each asks about a picture of its own, hears the answer as a stream, and asks again."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import httpx
import numpy as np
from PIL import Image

from benchmarks import material

QUESTIONS = ("What can be seen here?", "Which colours are in the picture?")
_WAIT_S = 1800.0  # for the next piece of an answer: the last of 32 in line waits minutes for its first


@dataclass(frozen=True)
class Picture:
    """A kind of picture: `size` in pixels, the `longest_edge` that it is scaled to, and the tiles that it is cut into."""

    size: tuple[int, int]
    longest_edge: int
    tiles: int
    detail: str | None = None  # what our server must be told to get there

    def jpeg(self, number: int) -> bytes:
        """The `number`-th of these pictures: the benchmark's scenery under blotches that differ in every tile."""
        with Image.open(material.image()) as image:
            scenery = np.asarray(image.convert("RGB").resize(self.size), np.int16)
        width, height = self.size
        coarse = np.random.default_rng(number).integers(0, 64, (height // 8, width // 8, 3), np.uint8)
        blotches = Image.fromarray(coarse).resize(self.size, Image.Resampling.BICUBIC)
        mixed = np.clip(scenery + np.asarray(blotches, np.int16) - 32, 0, 255).astype(np.uint8)
        out = io.BytesIO()
        Image.fromarray(mixed).save(out, "JPEG", quality=90)
        return out.getvalue()


# What the official processor makes of them: 4 x 3 tiles of 512 and the whole; 2 x 1 and the whole.
PICTURES = {"whole": Picture((1280, 720), 2048, 13), "small": Picture((1024, 512), 1024, 3, detail="fit")}
STRIP = Picture((1024, 64), 1024, 1, detail="low")  # to warm up: few tiles even where it is enlarged to 2048 x 128


def body(picture: Picture, number: int, new_tokens: int, question: str = QUESTIONS[0]) -> bytes:
    """A request of OpenAI's chat completions. `ignore_eos` and `loop_guard` make an answer `new_tokens` long."""
    url = "data:image/jpeg;base64," + base64.b64encode(picture.jpeg(number)).decode()
    image = {"url": url} | ({"detail": picture.detail} if picture.detail else {})
    content = [{"type": "image_url", "image_url": image}, {"type": "text", "text": question}]
    return json.dumps(
        {
            "model": "model",
            "messages": [{"role": "user", "content": content}],
            "temperature": 0,
            "max_tokens": new_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
            "ignore_eos": True,
            "loop_guard": False,
        }
    ).encode()


@dataclass
class Heard:
    """One answer. Times in seconds on one clock: when it was asked, when each piece of text came, when it was over."""

    asked: float
    pieces: list[float] = field(default_factory=list)
    over: float = 0.0
    prompt_tokens: int = 0
    new_tokens: int = 0  # as the server counts them: a piece of text may hold several


async def ask(client: httpx.AsyncClient, request: bytes) -> Heard:
    """Send `request` and hear its answer out. Raises RuntimeError for anything but a whole answer."""
    heard = Heard(time.perf_counter())
    finished = False
    async with client.stream("POST", "/v1/chat/completions", content=request) as response:
        if response.status_code != 200:
            raise RuntimeError(f"HTTP {response.status_code}: {(await response.aread())[:300].decode(errors='replace')}")
        async for line in response.aiter_lines():
            if not line.startswith("data:") or line.endswith("[DONE]"):
                continue
            came = time.perf_counter()
            event: dict[str, Any] = json.loads(line[5:])
            if "error" in event:
                raise RuntimeError(f"the server broke off: {event['error']}")
            for choice in event.get("choices") or []:
                if (choice.get("delta") or {}).get("content"):
                    heard.pieces.append(came)
                finished = finished or choice.get("finish_reason") is not None
            if usage := event.get("usage"):
                heard.prompt_tokens, heard.new_tokens = usage["prompt_tokens"], usage["completion_tokens"]
    heard.over = time.perf_counter()
    if not finished or not heard.pieces:
        raise RuntimeError("the answer ended without text or without a finish_reason.")
    return heard


async def _closed_loop(url: str, requests: Sequence[bytes], clients: int) -> list[Heard]:
    left: Iterator[bytes] = iter(requests)
    answers: list[Heard] = []
    # A connection a question: llama-server may close one that was used before, just when it is used again.
    limits = httpx.Limits(max_connections=clients, max_keepalive_connections=0)
    headers = {"Content-Type": "application/json"}
    async with httpx.AsyncClient(base_url=url, timeout=_WAIT_S, limits=limits, headers=headers, trust_env=False) as client:

        async def one() -> None:
            for request in left:
                answers.append(await ask(client, request))

        await asyncio.gather(*(one() for _ in range(clients)))
    return answers


def closed_loop(url: str, requests: Sequence[bytes], clients: int) -> list[Heard]:
    """All `requests` through `clients` clients; each asks its next as soon as it is answered."""
    return asyncio.run(_closed_loop(url, requests, clients))


def as_json(answers: Sequence[Heard]) -> list[dict[str, Any]]:
    """Times from the first question on, to a hundredth of a millisecond."""
    start = min(heard.asked for heard in answers)

    def since(at: float) -> float:
        return round(at - start, 5)

    return [
        asdict(heard) | {"asked": since(heard.asked), "pieces": [since(at) for at in heard.pieces], "over": since(heard.over)}
        for heard in answers
    ]
