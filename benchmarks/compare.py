"""This package and transformers side by side, in one run on the same checkpoint of 256M size with random weights.

    python -m benchmarks.compare                    # bfloat16, 2 threads, 3 rounds
    python -m benchmarks.compare --quick            # a minute: one round, fewer tiles and frames
    python -m benchmarks.compare --only decode,image

Each system lives in a process of its own; within a task they take turns and the order changes every round; the figure
is the median of the rounds after one run to warm up. Writes a table and benchmarks/results/compare-*.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import material
from benchmarks.machine import RESULTS, ROOT, describe_machine
from benchmarks.report import make_table, summarise
from smolvlm.config import load_configs

SYSTEMS = ("smolvlm", "transformers")
TASKS = ("vision", "prefill", "decode", "image", "video")
PROMPT = "What can be seen here?"


@dataclass
class Worker:
    """A child process that answers one request at a time."""

    system: str
    process: subprocess.Popen[str]
    load: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def start(cls, system: str, folder: Path, dtype: str, threads: int) -> Worker:
        command = [sys.executable, "-m", "benchmarks.worker", system, str(folder), dtype, str(threads)]
        pipe = subprocess.PIPE
        process = subprocess.Popen(command, cwd=ROOT, stdin=pipe, stdout=pipe, text=True, bufsize=1)
        worker = cls(system, process)
        worker.load = worker._reply()
        return worker

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin is not None, "started with a pipe"
        print(json.dumps(request), file=self.process.stdin, flush=True)
        return self._reply()

    def stop(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:  # interrupted in the middle of a long task
            self.process.kill()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout is not None, "started with a pipe"
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"the {self.system} process ended with code {self.process.wait()}; see its message above.")
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise SystemExit(f"{self.system}: {reply['error']}")
        return reply


def requests(tasks: list[str], folder: Path, quick: bool) -> list[dict[str, Any]]:
    """One request a task, small enough in a quick run."""
    side = load_configs(folder)[0].vision.image_size
    media = {"prompt": PROMPT, "new_tokens": 16 if quick else 64, "max_frames": 8 if quick else 64}
    known: dict[str, dict[str, Any]] = {
        "vision": {"tiles": 2 if quick else 13, "side": side},
        "prefill": {"tokens": 1024},
        "decode": {"prompt_tokens": 256, "new_tokens": 16 if quick else 64},
    }
    if "image" in tasks:
        known["image"] = {"path": str(material.image()), **media}
    if "video" in tasks:
        known["video"] = {"path": str(material.clip()), **media}
    return [{"task": task, **known[task]} for task in tasks]


def measure(workers: list[Worker], request: dict[str, Any], rounds: int,
            console: Console) -> dict[str, list[dict[str, Any]]]:  # fmt: skip
    """All rounds of one task; the first system changes from round to round."""
    results: dict[str, list[dict[str, Any]]] = {worker.system: [] for worker in workers}
    for round_number in range(rounds + 1):
        order = workers if round_number % 2 else workers[::-1]
        for worker in order:
            reply = worker.ask({**request, "seed": round_number})
            label = "warm-up" if round_number == 0 else f"round {round_number}"
            line = f"  {request['task']:8} {label:8} {worker.system:13} {reply['seconds']:8.3f} s"
            console.print(line, highlight=False)
            if round_number:
                results[worker.system].append(reply)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="256m", help="a size that write_random_checkpoint knows (256m)")
    parser.add_argument("--dtype", default="bfloat16", choices=["float32", "bfloat16", "float16"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round, fewer tiles, frames and tokens")
    parser.add_argument("--only", default=",".join(TASKS), help=f"of {','.join(TASKS)}")
    parser.add_argument("--out", type=Path, help="where to write the JSON file")
    args = parser.parse_args()
    tasks = args.only.split(",")
    if unknown := sorted(set(tasks) - set(TASKS)):
        parser.error(f"unknown task {', '.join(unknown)}; the tasks are {', '.join(TASKS)}")
    if args.threads < 1 or args.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")
    rounds = 1 if args.quick else args.rounds

    console = Console(stderr=True)
    folder = material.checkpoint(args.size, args.dtype)
    todo = requests(tasks, folder, args.quick)
    console.print(f"loading {folder.name} twice: {args.dtype}, {args.threads} threads", highlight=False)
    workers = [Worker.start(system, folder, args.dtype, args.threads) for system in SYSTEMS]
    try:
        results = {request["task"]: measure(workers, request, rounds, console) for request in todo}
        memory = {worker.system: worker.ask({"task": "memory"})["peak_bytes"] for worker in workers}
    finally:
        for worker in workers:
            worker.stop()
    rows = summarise({request["task"]: request for request in todo}, results, SYSTEMS)
    rows.append({"what": "peak memory, whole run", "unit": "MB", "better": "lower",
                 **{system: peak / 1e6 for system, peak in memory.items()},
                 "ratio": memory["transformers"] / memory["smolvlm"]})  # fmt: skip
    title = f"{args.size}, {args.dtype}, {args.threads} threads, {rounds} rounds"
    Console(width=max(console.width, 120)).print(make_table(rows, SYSTEMS, title))
    report = {
        "command": " ".join([Path(sys.executable).name, "-m", "benchmarks.compare", *sys.argv[1:]]),
        "machine": describe_machine(),
        "settings": {"size": args.size, "dtype": args.dtype, "threads": args.threads, "rounds": rounds,
                     "quick": args.quick},
        "load": {worker.system: worker.load for worker in workers},
        "rows": rows,
        "requests": [{**r, "path": Path(r["path"]).name} if "path" in r else r for r in todo],
        "seconds": {task: {system: [run["seconds"] for run in runs] for system, runs in by.items()}
                    for task, by in results.items()},
        "spread": {task: {system: _spread([run["seconds"] for run in runs]) for system, runs in by.items()}
                   for task, by in results.items()},
    }  # fmt: skip
    suffix = "-quick" if args.quick else ""
    out = args.out or RESULTS / f"compare-{args.size}-{args.dtype}-{args.threads}threads{suffix}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    console.print(f"written: {out}", highlight=False)


def _spread(seconds: list[float]) -> float:
    """(slowest - fastest) / median: above 0.1 the machine was not quiet."""
    return round((max(seconds) - min(seconds)) / statistics.median(seconds), 3)


if __name__ == "__main__":
    main()
