"""This package and its peers side by side, in one run on the same checkpoint of random weights, on the CPU.

    python -m benchmarks.compare                    # the 256M size, 2 threads, 3 rounds (two took 27 minutes)
    python -m benchmarks.compare --quick            # does it all run? One round; the figures mean nothing
    python -m benchmarks.compare --only prefill,decode-256 --systems smolvlm-q8,llama.cpp-q8,transformers-bf16
    SMOLVLM_INSTRUCTIONS=avx2 python -m benchmarks.compare      # what a laptop without AVX-512 has

Each system lives in a process of its own; within a task they take turns and the order changes every round; a figure is
the median of the rounds after one run to warm up. Those that need minutes for a video do it once. The video has fresh
processes, so that its peak memory is its own. A peer that is not installed is a row that says so (`pip install --group
bench`, and llama-cpp-python as benchmarks/peer_llama.py says). All processes live at the same time: of the 2.2B size
choose the systems that the memory holds. Prints tables; a whole run writes benchmarks/results/compare-*.json and, of the
256M size, docs/compare.png; a quick one or a part of it writes into .work, or where --out and --chart say.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks import material
from benchmarks.chart import draw
from benchmarks.machine import RESULTS, ROOT, WORK, describe_machine
from benchmarks.report import make_tables, summarize
from benchmarks.rounds import Worker, absent, measure, prepare, stop
from benchmarks.worker import SYSTEMS
from smolvlm.config import load_configs

TASKS = ("vision", "prefill", "decode-256", "decode-2048", "batch", "image", "video")
PROMPT = "What can be seen here?"
# A video takes these a minute: once, without a run to warm up.
SLOW = ("smolvlm-torch", "transformers-bf16", "transformers-fp32")
SEQUENCES = 8
PREPARED_DTYPE = "bfloat16"  # of the checkpoint that all read, as the official ones are


def requests(tasks: list[str], folder: Path, quick: bool) -> list[dict[str, Any]]:
    """One request a task, small in a quick run."""
    side = load_configs(folder)[0].vision.image_size
    new = 8 if quick else 64
    media = {"prompt": PROMPT, "new_tokens": new, "max_frames": 4 if quick else 64}
    known: dict[str, dict[str, Any]] = {
        "vision": {"tiles": 1 if quick else 13, "side": side},
        "prefill": {"tokens": 256 if quick else 1024},
        "decode-256": {"prompt_tokens": 256, "new_tokens": new},
        "decode-2048": {"prompt_tokens": 2048, "new_tokens": new},
        "batch": {"prompt_tokens": 256, "new_tokens": new, "sequences": SEQUENCES},
    }
    if "image" in tasks:
        known["image"] = {"path": str(material.image()), **media}
    if "video" in tasks:
        known["video"] = {"path": str(material.clip()), **media}
    return [{"task": task, **known[task]} for task in TASKS if task in tasks]


def run(args: argparse.Namespace, tasks: list[str], systems: list[str], console: Console) -> dict[str, Any]:
    """Everything, as the JSON report."""
    rounds = 1 if args.quick else args.rounds
    folder = material.checkpoint(args.size, PREPARED_DTYPE)
    todo = requests(tasks, folder, args.quick)
    missing = {}
    for system in systems:
        if SYSTEMS[system][0].startswith("peer_"):  # the others read the official files
            console.print(f"preparing {system}", highlight=False)
            if reason := absent(prepare(system, folder, args.threads)):
                missing[system] = reason
    present = [system for system in systems if system not in missing]
    results: dict[str, dict[str, list[dict[str, Any]]]] = {}
    loads: dict[str, dict[str, Any]] = {}
    memory: dict[str, dict[str, int]] = {}
    for part in ("others", "video"):  # fresh processes for the video: its peak memory is then its own
        some = [request for request in todo if (request["task"] == "video") == (part == "video")]
        if not some:
            continue
        workers: list[Worker] = []
        try:
            for system in present:
                # Who could not take part in the first half is known, and is not loaded again for nothing.
                if any(request["task"] in loads.get(system, {"tasks": TASKS})["tasks"] for request in some):
                    workers.append(Worker.start(system, folder, args.threads))
            for worker in list(workers):
                if reason := absent(worker.load):
                    missing[worker.system] = reason
                    workers.remove(worker)
                else:
                    loads.setdefault(worker.system, worker.load)
            for request in some:
                able = [worker for worker in workers if request["task"] in worker.load["tasks"]]
                if able:
                    slow = SLOW if part == "video" else ()
                    results[request["task"]] = measure(able, request, rounds, slow, console)
            ran = [w for w in workers if any(w.system in results.get(request["task"], {}) for request in some)]
            peaks = {worker.system: worker.ask({"task": "memory"}).get("peak_bytes") for worker in ran}
            memory[part] = {system: peak for system, peak in peaks.items() if peak}  # a process may have died
        finally:
            stop(workers)
    return {
        "command": " ".join([*_forced(), Path(sys.executable).name, "-m", "benchmarks.compare", *sys.argv[1:]]),
        "machine": describe_machine(),
        "settings": {
            "size": args.size,
            "threads": args.threads,
            "rounds": rounds,
            "quick": args.quick,
            "once": list(SLOW),
            "environment": _forced(),
        },
        "absent": missing,
        "load": loads,
        "rows": summarize({request["task"]: request for request in todo}, results, memory),
        "requests": [{**r, "path": Path(r["path"]).name} if "path" in r else r for r in todo],
        "seconds": {task: {system: [one["seconds"] for one in runs] for system, runs in by.items()} for task, by in results.items()},
    }


def _forced() -> list[str]:
    """The settings of the environment that change what our engine does."""
    return [f"{name}={os.environ[name]}" for name in ("SMOLVLM_INSTRUCTIONS",) if os.environ.get(name)]


def _some_of(known: tuple[str, ...], text: str, what: str, parser: argparse.ArgumentParser) -> list[str]:
    chosen = text.split(",")
    if unknown := sorted(set(chosen) - set(known)):
        parser.error(f"unknown {what} {', '.join(unknown)}; there are {', '.join(known)}")
    return [name for name in known if name in chosen]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="256m", choices=["tiny", "256m", "500m", "2.2b"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="one round of small tasks: does everything run?")
    parser.add_argument("--only", default=",".join(TASKS), metavar="TASKS", help=f"of {','.join(TASKS)}")
    parser.add_argument("--systems", default=",".join(SYSTEMS), help=f"of {','.join(SYSTEMS)}")
    parser.add_argument("--out", type=Path, help="where to write the JSON file")
    parser.add_argument("--chart", type=Path, help="where to write the bar chart")
    args = parser.parse_args()
    tasks = _some_of(TASKS, args.only, "task", parser)
    systems = _some_of(tuple(SYSTEMS), args.systems, "system", parser)
    if args.threads < 1 or args.rounds < 1:
        parser.error("--threads and --rounds must be at least 1")

    console = Console(stderr=True)
    report = run(args, tasks, systems, console)
    wide = Console(width=max(console.width, 150))
    for table in make_tables(report):
        wide.print(table)
    whole = not args.quick and tasks == list(TASKS) and systems == list(SYSTEMS)
    name = "-".join(["compare", args.size, f"{args.threads}threads", *(text.split("=")[1] for text in _forced())])
    # Neither a trial nor a part of the run takes the place of a published figure unless it is told to (--out).
    out = args.out or (RESULTS / f"{name}.json" if whole else WORK / f"{name}-part.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    chart = args.chart or (ROOT / "docs" / "compare.png" if whole and args.size == "256m" and not _forced() else out.with_suffix(".png"))
    drawn = draw(report, chart)
    console.print(f"written: {out}" + (f", {chart}" if drawn else ""), highlight=False)


if __name__ == "__main__":
    main()
