"""One system in a process of its own, so that its peak memory is its own. Speaks one JSON object a line.

    python -m benchmarks.worker SYSTEM FOLDER DTYPE THREADS

Request `{"task": name, ...}`, reply `{"seconds": ...}` with the task's own figures, or `{"error": text}`. Ends when its
input ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import peak_memory_bytes


def make_system(name: str, folder: Path, dtype: str, threads: int) -> Any:
    if name == "smolvlm":
        from benchmarks.ours import Ours

        return Ours(folder, dtype, threads)
    from benchmarks.reference import Reference

    return Reference(folder, dtype, threads)


def run_task(system: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The inputs follow from the request alone, so both systems get the same."""
    task = request["task"]
    rng = np.random.default_rng(request.get("seed", 0))
    if task == "vision":
        side = request["side"]
        pixels = rng.uniform(-1, 1, (request["tiles"], 3, side, side)).astype(np.float32)
        return {"seconds": system.vision(pixels)}
    if task == "prefill":
        seconds, token = system.prefill(_ids(rng, request["tokens"]))
        return {"seconds": seconds, "tokens": [token]}
    if task == "decode":
        seconds, tokens = system.decode(_ids(rng, request["prompt_tokens"]), request["new_tokens"])
        return {"seconds": seconds, "tokens": tokens}
    if task in ("image", "video"):
        result: dict[str, Any] = system.ask(task, request["path"], request["prompt"], request["new_tokens"],
                                            request["max_frames"])  # fmt: skip
        return result
    if task == "memory":
        return {"peak_bytes": peak_memory_bytes()}
    raise ValueError(f"unknown task {task!r}")


def _ids(rng: np.random.Generator, count: int) -> list[int]:
    """Plain text tokens: no control and no image token."""
    return [int(i) for i in rng.integers(17, 49152, count)]


def main() -> None:
    name, folder, dtype, threads = sys.argv[1:5]
    # Replies own the real stdout; whatever a library prints goes to stderr.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    started = time.perf_counter()
    system = make_system(name, Path(folder), dtype, int(threads))
    print(json.dumps({"seconds": time.perf_counter() - started, "peak_bytes": peak_memory_bytes()}), file=replies)
    for line in sys.stdin:
        try:
            reply = run_task(system, json.loads(line))
        except Exception as error:  # the other side must hear of it, whatever it is
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=replies)


if __name__ == "__main__":
    main()
