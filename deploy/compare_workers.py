"""What `--workers` costs and gives on this machine: requests a second, waiting and memory, for each number of workers.

    python deploy/compare_workers.py MODEL [--workers 1 2] [--clients 1 4 16]

Every client asks about a picture of its own, over a connection of its own, again as soon as it is answered: 32 tokens, all of
them new to the server. Memory is what the processes hold together (proportional set size: shared pages count once), after
the last request. Needs psutil.
"""

from __future__ import annotations

import argparse
import base64
import io
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import psutil
from PIL import Image

SIDE_PX = 448
REQUESTS_A_CLIENT = 3


def picture(number: int) -> str:
    """A data URL of a gradient that no other number has."""
    image = Image.linear_gradient("L").resize((SIDE_PX, SIDE_PX)).point(lambda value: (value + number) % 256)
    image.putpixel((number % SIDE_PX, number // SIDE_PX % SIDE_PX), number * 7 % 256)
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode()


def ask(url: str, model: str, number: int) -> float:
    """Seconds until the whole answer is there."""
    parts = [
        {"type": "image_url", "image_url": {"url": picture(number), "detail": "low"}},
        {"type": "text", "text": "What is this?"},
    ]
    body = {
        "model": model,
        "messages": [{"role": "user", "content": parts}],
        "max_tokens": 32,
        "ignore_eos": True,
        "loop_guard": False,
    }
    started = time.perf_counter()
    httpx.post(f"{url}/v1/chat/completions", json=body, timeout=600).raise_for_status()
    return time.perf_counter() - started


def measure(model: str, workers: int, clients: list[int]) -> None:
    command = [sys.executable, "-m", "smolvlm", "serve", "--model", model, "--served-name", "it", "--port", "0",
               "--workers", str(workers), "--media-workers", "1", "--log-level", "error"]  # fmt: skip
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert server.stdout is not None
        url = server.stdout.readline().split()[-1]
        while not ready(url, workers):
            assert server.poll() is None, "the server ended"
            time.sleep(0.2)
        number = 0
        for count in clients:
            total = count * REQUESTS_A_CLIENT
            with ThreadPoolExecutor(count) as pool:
                started = time.perf_counter()
                seconds = list(pool.map(lambda i: ask(url, "it", i), range(number, number + total)))
                elapsed_s = time.perf_counter() - started
            number += total
            print(
                f"| {workers} | {count} | {total / elapsed_s:.2f} | {statistics.median(seconds):.2f} | {max(seconds):.2f} |  |"
            )
        tree = [psutil.Process(server.pid), *psutil.Process(server.pid).children(recursive=True)]
        held = sum(process.memory_full_info().pss for process in tree)
        print(f"| {workers} | after | | | | {held / 1e6:,.0f} |", flush=True)
    finally:
        server.terminate()
        server.wait(60)


def ready(url: str, workers: int) -> bool:
    try:
        text = httpx.get(f"{url}/metrics").text
        return httpx.get(f"{url}/ready").status_code == 200 and (
            workers == 1 or f"worker_processes {workers}.0" in text
        )
    except httpx.TransportError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare numbers of server processes on this machine.")
    parser.add_argument("model")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    options = parser.parse_args()
    print(
        "| workers | clients | requests/s | median answer, s | slowest, s | memory, MB |\n| ---: | ---: | ---: | ---: | ---: | ---: |"
    )
    for workers in options.workers:
        measure(options.model, workers, options.clients)


if __name__ == "__main__":
    main()
