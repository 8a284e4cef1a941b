"""Two keys on one server: one sends bombs without a pause, the other asks about small pictures and is timed."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

import helpers_attack
from helpers_attack import Request
from helpers_serve import Server, serving
from smolvlm.cli.main import main

CHAT = "/v1/chat/completions"
_DRAW = random.Random(5)  # of all: a picture that came before would be in the tile cache


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

    def seconds(self, count: int) -> list[float]:
        waits = []
        for _ in range(count):
            pixels = np.frombuffer(_DRAW.randbytes(64 * 64 * 3), np.uint8).reshape(64, 64, 3)
            body = io.BytesIO()
            Image.fromarray(pixels).save(body, "PNG")
            request = about(data_url(body.getvalue()))
            started = time.perf_counter()
            reply = self._http.post(CHAT, content=request, headers={"Content-Type": "application/json"})
            waits.append(time.perf_counter() - started)
            assert reply.status_code == 200, reply.text
        return waits


@contextlib.contextmanager
def attacks(server: Server, key: str, requests: list[Request], folder: Path, at_once: int = 6) -> Iterator[Path]:
    """Another process whose `at_once` connections send one after the other of `requests` until the block ends; gives the file
    with the answers' statuses. Its own work is no part of what the server does: it runs at the lowest priority."""
    files = [str(request.write(folder / f"request{i}")) for i, request in enumerate(requests)]
    statuses = folder / "statuses"
    with statuses.open("wb") as out:
        command = [sys.executable, helpers_attack.__file__, server.url, key, str(at_once), *files]
        process = subprocess.Popen(command, stdout=out)
        try:
            time.sleep(3)
            assert process.poll() is None
            yield statuses
        finally:
            process.kill()
            process.wait()


def share(waits: list[float], part: float) -> float:
    """What `part` of the waits stay under: 0.99 gives the 99th percentile."""
    return sorted(waits)[min(len(waits) - 1, int(part * len(waits)))]
