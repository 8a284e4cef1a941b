"""One system in a process of its own, so that its peak memory is its own. Speaks one JSON object a line.

    python -m benchmarks.worker SYSTEM FOLDER THREADS             # answers requests until its input ends
    python -m benchmarks.worker SYSTEM FOLDER THREADS --prepare   # writes the files that the system reads, and ends

Request `{"task": name, ...}`, reply `{"seconds": ...}` with the task's own figures, or `{"error": text}`. Once ready it
says what it loaded; where its package is not installed it says `{"absent": reason}` and ends. Preparing (a conversion,
a quantization) has a process of its own, for it may take more memory than running.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import peak_memory_bytes

# system -> module of `benchmarks` with its `make` (peers: and `prepare`), and the variant that they are told.
SYSTEMS = {
    "smolvlm-q8": ("ours", "q8"),
    "smolvlm-q4": ("ours", "q4"),
    "smolvlm-bf16": ("ours", "bf16"),
    "smolvlm-int8": ("ours", "vision=q8"),  # the encoder too; smolvlm-q8 leaves it to the machine
    "smolvlm-torch": ("ours", "torch"),
    "transformers-bf16": ("reference", "bf16"),
    "transformers-fp32": ("reference", "fp32"),
    "llama.cpp-q8": ("peer_llama", "q8"),
    "llama.cpp-q4": ("peer_llama", "q4"),
    "llama.cpp-bf16": ("peer_llama", "bf16"),
    "onnxruntime-fp32": ("peer_onnx", "fp32"),
    "onnxruntime-int8": ("peer_onnx", "int8"),
    "openvino-bf16": ("peer_openvino", "bf16"),
    "openvino-int8": ("peer_openvino", "int8"),
    "openvino-q4": ("peer_openvino", "q4"),
}


def run_task(system: Any, request: dict[str, Any]) -> dict[str, Any]:
    """The inputs follow from the request alone, so that all systems get the same."""
    task = request["task"]
    rng = np.random.default_rng(request.get("seed", 0))
    if task == "vision":
        side = request["side"]
        pixels = rng.uniform(-1, 1, (request["tiles"], 3, side, side)).astype(np.float32)
        seconds, embeds = system.vision(pixels)
        return {"seconds": seconds, "sample": _sample(embeds)}
    if task == "prefill":
        seconds, logits = system.prefill(_ids(rng, request["tokens"]))
        return {"seconds": seconds} | ({} if logits is None else {"sample": _sample(logits)})
    if task.startswith("decode"):
        seconds, tokens = system.decode(_ids(rng, request["prompt_tokens"]), request["new_tokens"])
        return {"seconds": seconds, "tokens": tokens}
    if task == "batch":
        prompts = [_ids(rng, request["prompt_tokens"]) for _ in range(request["sequences"])]
        seconds, tokens = system.decode_batch(prompts, request["new_tokens"])
        return {"seconds": seconds, "tokens": tokens}
    if task in ("image", "video"):
        result: dict[str, Any] = system.ask(task, request["path"], request["prompt"], request["new_tokens"], request["max_frames"])
        return result
    if task == "memory":
        return {"peak_bytes": peak_memory_bytes()}
    raise ValueError(f"unknown task {task!r}")


def _ids(rng: np.random.Generator, count: int) -> list[int]:
    """Plain text tokens: no control and no image token."""
    return [int(i) for i in rng.integers(17, 49152, count)]


def _sample(output: Any) -> list[float]:
    """Some 250 values, spread over tokens and channels or over the vocabulary: enough to see that a system is wrong."""
    flat = np.asarray(output, np.float32).reshape(-1)
    return [float(value) for value in flat[:: max(1, len(flat) // 251)]]


def main() -> None:
    name, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    # Replies own the real stdout; whatever a library prints goes to stderr.
    replies = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def reply(value: dict[str, Any]) -> None:
        print(json.dumps(value), file=replies)

    module, variant = SYSTEMS[name]
    started = time.perf_counter()
    try:
        peer = importlib.import_module(f"benchmarks.{module}")
        if "--prepare" in sys.argv:
            peer.prepare(folder, variant)
            return reply({"seconds": time.perf_counter() - started})
        system = peer.make(folder, variant, threads)
    except ModuleNotFoundError as error:
        return reply({"absent": f"{error.name} is not installed"})
    except Exception as error:
        return reply({"error": f"{type(error).__name__}: {error}"})
    reply(
        {"seconds": time.perf_counter() - started, "peak_bytes": peak_memory_bytes(), "tasks": sorted(system.tasks), "about": system.about}
    )
    for line in sys.stdin:
        try:
            answer = run_task(system, json.loads(line))
        except Exception as error:  # the other side must hear of it, whatever it is
            answer = {"error": f"{type(error).__name__}: {error}"}
        reply(answer)
    return None


if __name__ == "__main__":
    main()
