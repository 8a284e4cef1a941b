"""What rounding costs: the native engine's formats against float32 torch, on the built-in benchmark.

    python -m benchmarks.agreement                  # nano, 250 items a task; half an hour on two cores
    python -m benchmarks.agreement --quick          # 10 items a task

For each format: how many greedy answers are the same, word for word, as those of float32, and how many are right. Answers are
kept under .work/agreement and not asked again. Prints a table and writes benchmarks/results/agreement.json.
"""

from __future__ import annotations

import argparse
import json
import logging
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

import smolvlm
from benchmarks.machine import RESULTS, WORK, describe_machine
from smolvlm.evals.runner import evaluate
from smolvlm.evals.synth_suite import synth_suite

REFERENCE = ("torch", "float32")
SYSTEMS = tuple(("native", dtype) for dtype in ("bfloat16", "q8", "q8,vision=q8", "q8,kv=q8", "q4"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="a short name or a checkpoint's folder (nano)")
    parser.add_argument("--items", type=int, default=250, help="of each task (250)")
    parser.add_argument("--quick", action="store_true", help="10 items a task")
    parser.add_argument("--work", type=Path, default=WORK / "agreement", help="where answers are kept")
    parser.add_argument("--out", type=Path, default=RESULTS / "agreement.json", help="the JSON file")
    args = parser.parse_args()
    logging.basicConfig(level=logging.ERROR)
    items = 10 if args.quick else args.items
    reference = answers(args.model, *REFERENCE, items, args.work)
    rows: list[dict[str, Any]] = [{"system": " ".join(REFERENCE), **score(reference, reference)}]
    for engine, dtype in SYSTEMS:
        rows.append({"system": f"{engine} {dtype}", **score(answers(args.model, engine, dtype, items, args.work), reference)})
    lines = [f"| {args.model} | items | same answer as float32 | right |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {r['system']} | {r['items']} | {r['same']:.2%} | {r['right']:.2%} |" for r in rows]
    print("\n".join(lines))
    text = json.dumps({"machine": describe_machine(), "model": args.model, "rows": rows}, indent=2)
    args.out.write_text(text + "\n", encoding="utf-8")


def answers(model: str, engine: str, dtype: str, items: int, work: Path) -> dict[tuple[str, int], dict[str, Any]]:
    """Every answer, by task and number."""
    out = work / f"{Path(model).name}-{engine}-{dtype}-{items}"
    loaded = smolvlm.load(model, engine=engine, device="cpu", dtype=dtype)
    with Progress(console=Console(stderr=True)) as progress:
        bar = progress.add_task(f"{engine} {dtype}")
        evaluate(
            loaded,
            synth_suite(),
            items=items,
            out=out,
            on_progress=lambda _, done, total: progress.update(bar, completed=done, total=total),
        )
    lines = (out / "items.jsonl").read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return {(item["task"], item["number"]): item for item in found}


def score(ours: dict[tuple[str, int], dict[str, Any]], reference: dict[tuple[str, int], dict[str, Any]]) -> dict[str, Any]:
    """Shares of equal answers and of right ones."""
    same = sum(ours[key]["answer"] == item["answer"] for key, item in reference.items())
    return {"items": len(reference), "same": same / len(reference), "right": sum(item["right"] for item in ours.values()) / len(ours)}


if __name__ == "__main__":
    main()
