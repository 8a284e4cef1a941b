"""The native engine beside other programs: a decode step and a tile with 0, 1, 2, 4 and 8 busy processes.

    python -m benchmarks.beside                            # nano
    python -m benchmarks.beside --model DIR --busy 0 2     # an official checkpoint

Each busy process counts in a loop at ordinary priority. One thread and all threads alternate, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from smolvlm.config import load_configs
from smolvlm.engines.native_engine import NativeEngine
from smolvlm.hub import resolve

BUSY = "while True: pass"
ROUNDS = 6


@contextlib.contextmanager
def busy(count: int) -> Iterator[None]:
    processes = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def times(call: Callable[[], object], seconds: float) -> list[float]:
    measured: list[float] = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(measured) < 3:
        began = time.perf_counter()
        call()
        measured.append(time.perf_counter() - began)
    return measured


def share(measured: list[float], part: float) -> float:
    return 1000 * sorted(measured)[min(len(measured) - 1, int(part * len(measured)))]


def calls(folder: Path, threads: int) -> dict[str, Callable[[], object]]:
    config, _ = load_configs(folder)
    engine = NativeEngine(folder, config, dtype="q8", threads=threads)
    side = config.vision.image_size
    pixels = np.random.default_rng(0).normal(size=(1, 3, side, side)).astype(np.float32)

    def step() -> None:
        if engine.length(seq) > 100:
            engine.rewind(seq, 64)
        engine.decode([seq], [7])

    seq = engine.open(256)
    engine.prefill(seq, [5] * 64)
    return {"decode step": step, "tile": lambda: engine.encode_images(pixels)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="nano")
    parser.add_argument("--busy", type=int, nargs="*", default=[0, 1, 2, 4, 8])
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement; six of each are made")
    args = parser.parse_args()
    folder = resolve(args.model)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    engines = {threads: calls(folder, threads) for threads in (1, cores)}
    table = Table(
        "call",
        "busy processes",
        "1 thread, p50 ms",
        "p99",
        f"{cores} threads, p50 ms",
        "p99",
        "p50 ratio",
        title=f"{args.model}, {cores} cores",
    )
    for count in args.busy:
        found: dict[tuple[str, int], list[float]] = {}
        with busy(count):
            for _ in range(ROUNDS):
                for threads, named in engines.items():
                    for name, call in named.items():
                        found.setdefault((name, threads), []).extend(times(call, args.seconds))
        for name in engines[1]:
            one, all_of_them = found[name, 1], found[name, cores]
            table.add_row(
                name,
                str(count),
                *(f"{share(each, part):.2f}" for each in (one, all_of_them) for part in (0.5, 0.99)),
                f"{share(all_of_them, 0.5) / share(one, 0.5):.2f}",
            )
    Console().print(table)


if __name__ == "__main__":
    main()
