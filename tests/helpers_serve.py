"""A real `smolvlm serve` in a process of its own, and what clients of it need."""

from __future__ import annotations

import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from openai import OpenAI

MEDIA = Path(__file__).resolve().parents[1] / "examples" / "media" / "nano"


class Server:
    """A running server. `url` has no path; `stop` sends SIGTERM and gives the exit code."""

    def __init__(self, process: subprocess.Popen[str], url: str, log: Path) -> None:
        self.process, self.url, self.log = process, url, log
        self.key = ""  # for /metrics, where keys are used

    def client(self, key: str = "unused", **options: Any) -> OpenAI:
        return OpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0, timeout=60, **options)

    def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        total = 0.0
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        for line in httpx.get(f"{self.url}/metrics", headers=headers).raise_for_status().text.splitlines():
            sample, _, value = line.rpartition(" ")
            if sample.split("{")[0] == name and all(f'{k}="{v}"' in sample for k, v in labels.items()):
                total += float(value)
        return total

    def wait_for_metric(self, name: str, value: float, **labels: str) -> None:
        deadline = time.monotonic() + 60  # a worker takes seconds to start, more where others are busy
        while self.metric(name, **labels) != value:
            assert time.monotonic() < deadline, f"{name} is {self.metric(name, **labels)}, not {value}"
            time.sleep(0.02)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)


@contextmanager
def serving(log: Path, *flags: str, ready: bool = True, environ: dict[str, str] | None = None) -> Iterator[Server]:
    """`smolvlm serve --model nano` on a free port; killed at the end, if it still runs."""
    command = [sys.executable, "-m", "smolvlm", "serve", "--port", "0", *flags]
    env = os.environ | {"SMOLVLM_THREADS": "1", "SMOLVLM_SERVE_MODEL": "nano", "SMOLVLM_SERVE_MEDIA_WORKERS": "1"} | (environ or {})
    with log.open("w") as stderr:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=env)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert " on http://" in line, f"{line!r}: {log.read_text()}"
        server = Server(process, line.split()[-1], log)
        deadline = time.monotonic() + 60
        while ready and not _is_ready(server.url):
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(10)
        process.stdout.close()


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/ready").status_code == 200
    except httpx.TransportError:
        return False


def data_url(name: str) -> str:
    kind = "video/mp4" if name.endswith(".mp4") else "image/png"
    return f"data:{kind};base64,{base64.b64encode((MEDIA / name).read_bytes()).decode()}"


def about(name: str, question: str) -> list[Any]:
    """A conversation about a picture of nano's."""
    picture = {"type": "image_url", "image_url": {"url": data_url(name)}}
    return [{"role": "user", "content": [picture, {"type": "text", "text": question}]}]


def text(question: str) -> list[Any]:
    return [{"role": "user", "content": question}]
