"""The native engine's matrix products against the roofline of this machine: bytes or FLOP over its measured peak.

    python -m benchmarks.kernels                    # the 256M size, 2 threads, the best instruction set
    python -m benchmarks.kernels --instructions avx2 --threads 1

The peaks are measured, not looked up. Memory: the fastest of a large copy and a large read by NumPy on all threads and a
product of one row by a matrix far larger than the caches. Arithmetic: for each format the fastest large product, ours or
(bf16) torch's where it is installed. A kernel's roof is the slower of the two bounds. Weights of a layer take turns with
copies of their own, so that they come from memory as they do between layers. Writes benchmarks/results/kernels-*.json.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.machine import RESULTS, WORK, describe_machine
from smolvlm.config import ModelConfig, preset
from smolvlm.engines.native_engine import native_module

FORMATS = ("bf16", "q8", "q4")
BYTES_A_WEIGHT = {"bf16": 2.0, "q8": 1 + 2 / 32, "q4": 0.5 + 2 / 32}  # with the half-precision scale of each 32
BEYOND_CACHES = 512 << 20
ROWS = {"decode": 1, "decode, 8 at once": 8, "prefill": 512}  # 512: what the engine gives its products at a time
LARGE = (1024, 4096, 4096)  # rows, outputs, inputs of the product that stands for the peak


@dataclass(frozen=True)
class Product:
    """y (m, n) = x (m, k) times a matrix (n, k) of weights."""

    what: str
    m: int
    n: int
    k: int

    @property
    def flop(self) -> float:
        return 2.0 * self.m * self.n * self.k

    def bytes(self, kind: str) -> float:
        """The weights, the activations once (at most two bytes a value) and the float32 results."""
        return self.n * self.k * BYTES_A_WEIGHT[kind] + self.m * (2 * self.k + 4 * self.n)


def products(config: ModelConfig) -> list[Product]:
    """The products of a model as the engine fuses them: q, k and v together, gate and up together."""
    text, vision = config.text, config.vision
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    shapes = {
        "qkv": (queries + 2 * keys, text.hidden_size),
        "o": (text.hidden_size, queries),
        "gate and up": (2 * text.intermediate_size, text.hidden_size),
        "down": (text.hidden_size, text.intermediate_size),
    }
    found = [Product(f"{stage}: {name}", m, n, k) for stage, m in ROWS.items() for name, (n, k) in shapes.items()]
    found += [Product(f"{stage}: head", ROWS[stage], text.vocab_size, text.hidden_size) for stage in ("decode", "decode, 8 at once")]
    dim, inner, patches = vision.hidden_size, vision.intermediate_size, vision.num_patches
    towers = {"qkv": (3 * dim, dim), "out": (dim, dim), "fc1": (inner, dim), "fc2": (dim, inner)}
    return found + [Product(f"vision: {name}", patches, n, k) for name, (n, k) in towers.items()]


def best_seconds(call: Callable[[], Any], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return min(times)


def memory_bytes_per_s(threads: int, repeats: int, by_product: float) -> dict[str, float]:
    """Bytes a second by each way; the largest is the peak. NumPy lets go of the interpreter's lock in both loops."""
    values = np.ones(BEYOND_CACHES // 4, np.float32)
    other = np.empty_like(values)
    parts = list(zip(np.array_split(values, threads), np.array_split(other, threads), strict=True))
    with ThreadPoolExecutor(threads) as pool:
        copy = best_seconds(lambda: list(pool.map(lambda pair: np.copyto(pair[1], pair[0]), parts)), repeats)
        read = best_seconds(lambda: list(pool.map(lambda pair: pair[0].max(), parts)), repeats)
    return {"copy": 2 * values.nbytes / copy, "read": values.nbytes / read, "product of one row": by_product}


def torch_flop_per_s(threads: int, repeats: int) -> float:
    """oneDNN's bfloat16 product of the same size, an independent peak; 0 without torch."""
    try:
        import torch
    except ModuleNotFoundError:
        return 0.0
    torch.set_num_threads(threads)
    m, n, k = LARGE
    x, w = torch.ones(m, k, dtype=torch.bfloat16), torch.ones(n, k, dtype=torch.bfloat16)
    with torch.inference_mode():
        return 2.0 * m * n * k / best_seconds(lambda: torch.nn.functional.linear(x, w), repeats + 1)


def measure(size: str, threads: int, instructions: str, repeats: int) -> dict[str, Any]:
    native = native_module()
    if native is None:
        raise SystemExit("the native engine is not part of this installation; install a C++ compiler and smolvlm again.")
    if instructions not in native.instruction_sets():
        known = ", ".join(native.instruction_sets())
        raise SystemExit(f"--instructions {instructions}: this machine and build have {known}; use one of these.")

    def seconds(product: Product, kind: str) -> float:
        """Small matrices many at a time, at most 64; those of many rows live off arithmetic and need fewer."""
        copies = int(BEYOND_CACHES / 4 / (product.n * product.k * BYTES_A_WEIGHT[kind])) if product.m < 64 else 4
        copies = max(1, min(64, copies))
        return float(native.probe.time_product(instructions, kind, product.m, product.n, product.k, threads, copies, repeats))

    m, n, k = LARGE
    one_row = Product("one row", 1, 8 * n, 2 * k)
    memory = memory_bytes_per_s(threads, repeats, one_row.n * one_row.k * 2 / seconds(one_row, "bf16"))
    peak_bytes = max(memory.values())
    flop = {kind: {"ours": 2.0 * m * n * k / seconds(Product("large", m, n, k), kind)} for kind in FORMATS}
    flop["bf16"]["torch"] = torch_flop_per_s(threads, repeats)
    rows = []
    for product in products(preset(size)):
        for kind in FORMATS:
            took = seconds(product, kind)
            bounds = {"memory": product.bytes(kind) / peak_bytes, "arithmetic": product.flop / max(flop[kind].values())}
            bound = max(bounds, key=lambda name: bounds[name])
            rows.append(
                {
                    "what": product.what,
                    "shape": [product.m, product.n, product.k],
                    "format": kind,
                    "seconds": took,
                    "gb_per_s": product.bytes(kind) / took / 1e9,
                    "gflop_per_s": product.flop / took / 1e9,
                    "bound": bound,
                    "share": bounds[bound] / took,
                }
            )
    return {
        "peak_gb_per_s": {way: value / 1e9 for way, value in memory.items()},
        "peak_gflop_per_s": {kind: {who: value / 1e9 for who, value in by.items()} for kind, by in flop.items()},
        "rows": rows,
    }


def make_table(report: dict[str, Any], title: str) -> Table:
    table = Table(title=title)
    for column in ("", "m x n x k", "format", "us", "GB/s", "GFLOP/s", "bound", "of the roof"):
        table.add_column(column, justify="left" if column in ("", "format", "bound") else "right")
    for row in report["rows"]:
        table.add_row(
            row["what"],
            " x ".join(map(str, row["shape"])),
            row["format"],
            f"{row['seconds'] * 1e6:,.0f}",
            f"{row['gb_per_s']:,.1f}",
            f"{row['gflop_per_s']:,.0f}",
            row["bound"],
            f"{row['share']:.0%}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="256m", choices=["256m", "500m", "2.2b"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--instructions", help="an instruction set (the best that the machine has)")
    parser.add_argument("--repeats", type=int, default=10, help="the shortest of so many counts")
    parser.add_argument("--quick", action="store_true", help="two repeats: does it run?")
    parser.add_argument("--out", type=Path, help="where to write the JSON file")
    args = parser.parse_args()
    if args.threads < 1 or args.repeats < 1:
        parser.error("--threads and --repeats must be at least 1")
    native = native_module()
    instructions = args.instructions or (native.instruction_sets()[0] if native else "")
    report = measure(args.size, args.threads, instructions, 2 if args.quick else args.repeats)
    console = Console()
    console.width = max(console.width, 110)
    console.print(make_table(report, f"{args.size}, {instructions}, {args.threads} threads"))
    for what, peaks in (
        ("memory, GB/s", report["peak_gb_per_s"]),
        *((f"{kind}, GFLOP/s", by) for kind, by in report["peak_gflop_per_s"].items()),
    ):
        console.print(f"peak {what}: " + ", ".join(f"{way} {value:,.1f}" for way, value in peaks.items()), highlight=False)
    command = " ".join([Path(sys.executable).name, "-m", "benchmarks.kernels", *sys.argv[1:]])
    name = f"kernels-{args.size}-{instructions}-{args.threads}threads.json"
    out = args.out or (WORK if args.quick else RESULTS) / name
    out.parent.mkdir(parents=True, exist_ok=True)
    settings = {"size": args.size, "threads": args.threads, "instructions": instructions}
    whole = {"command": command, "machine": describe_machine(), "settings": settings, **report}
    out.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    console.print(f"written: {out}", highlight=False)


if __name__ == "__main__":
    main()
