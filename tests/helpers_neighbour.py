"""Two keys on one server: one sends bombs without a pause, the other asks about small pictures and is timed."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import random
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

from helpers_serve import Server, serving
from smolvlm.cli.main import main

CHAT = "/v1/chat/completions"


def data_url(data: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def about(url: str, kind: str = "image_url") -> bytes:
    """A request about one medium, ready to be sent."""
    content = [{"type": kind, kind: {"url": url}}, {"type": "text", "text": "What is this?"}]
    return json.dumps({"model": "nano", "max_tokens": 4, "messages": [{"role": "user", "content": content}]}).encode()


@contextlib.contextmanager
def two_keys(folder: Path, *flags: str, environ: dict[str, str] | None = None) -> Iterator[tuple[Server, str, str]]:
    """A server with the default decoding processes, and its keys."""
    keys = folder / "keys.json"
    found = []
    for name in ("attacker", "neighbour"):
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            assert main(["serve", "--new-key", name, "--keys-file", str(keys)]) == 0
        found.append(max(printed.getvalue().split(), key=len))
    with serving(folder / "log", "--keys-file", str(keys), "--media-workers", "2", *flags, environ=environ) as server:
        yield server, found[0], found[1]


class Neighbour:
    """Asks about a new small picture again and again; `seconds(count)` are its waits."""

    def __init__(self, server: Server, key: str) -> None:
        self._http = httpx.Client(base_url=server.url, headers={"Authorization": f"Bearer {key}"}, timeout=120)
        self._draw = random.Random(5)

    def seconds(self, count: int) -> list[float]:
        waits = []
        for _ in range(count):
            pixels = np.frombuffer(self._draw.randbytes(64 * 64 * 3), np.uint8).reshape(64, 64, 3)
            body = io.BytesIO()
            Image.fromarray(pixels).save(body, "PNG")
            request = about(data_url(body.getvalue()))
            started = time.perf_counter()
            reply = self._http.post(CHAT, content=request, headers={"Content-Type": "application/json"})
            waits.append(time.perf_counter() - started)
            assert reply.status_code == 200, reply.text
        return waits


@contextlib.contextmanager
def attacks(
    server: Server, key: str, sends: list[Callable[[httpx.Client], Any]], at_once: int = 6
) -> Iterator[list[Any]]:
    """`at_once` connections that send one after the other of `sends` until the block ends; gives what came back."""
    stop, got = threading.Event(), []
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def attack(first: int) -> None:
        with httpx.Client(base_url=server.url, headers=headers, timeout=300) as http:
            turn = first
            while not stop.is_set():
                with contextlib.suppress(httpx.HTTPError):
                    got.append(sends[turn % len(sends)](http))
                turn += 1

    threads = [threading.Thread(target=attack, args=(i,), daemon=True) for i in range(at_once)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(2)
        yield got
    finally:
        stop.set()


def share(waits: list[float], part: float) -> float:
    """What `part` of the waits stay under: 0.99 gives the 99th percentile."""
    return sorted(waits)[min(len(waits) - 1, int(part * len(waits)))]
