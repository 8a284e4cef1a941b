"""From rounds of seconds to rows of medians and ratios, and to the tables that people read."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # system -> its rounds
Row = dict[str, Any]

BASE = "transformers-bf16"
EXACT = "transformers-fp32"  # what the others' outputs are held against; the other one where it did not run
# Each of ours against the peer with as many bits.
SAME_BITS = {"smolvlm-q8": "llama.cpp-q8", "smolvlm-q4": "llama.cpp-q4", "smolvlm-bf16": "llama.cpp-bf16"}


def summarize(requests: Mapping[str, Mapping[str, Any]], results: Mapping[str, Runs], memory: Mapping[str, Mapping[str, int]]) -> list[Row]:
    """One row a figure: its value for each system, and how many times better each is than the peers.

    Times are medians. `spread` is (slowest - fastest) / median: above 0.1 the machine was not quiet. `difference` is
    the relative error of outputs against the reference: a fast wrong answer should not go unseen.
    """
    rows: list[Row] = []
    for task, runs in results.items():
        request = requests[task]
        if task == "vision":
            rows.append(_row(task, "vision", "s/tile", runs, divide=request["tiles"]))
        elif task == "prefill":
            rows.append(_row(task, f"prefill {request['tokens']:,}", "tokens/s", runs, rate=request["tokens"]))
        elif task == "batch":
            new = request["sequences"] * request["new_tokens"]
            rows.append(_row(task, f"decode, {request['sequences']} at once", "tokens/s", runs, rate=new))
        elif task.startswith("decode"):
            label = f"decode at {request['prompt_tokens']:,}"
            rows.append(_row(task, label, "tokens/s", runs, rate=request["new_tokens"]))
        else:
            rows.append(_row(task, task, "s", runs))
            rows[-1]["prompt_tokens"] = {system: some[0]["prompt_tokens"] for system, some in runs.items()}
            rows.append(_row(f"{task}-first", f"{task}, first token", "s", runs, key="first_token_s"))
        if differences := _differences(runs):
            rows[-1]["difference"] = differences
        if agreements := _agreements(runs):
            rows[-1]["same_tokens"] = agreements
    for part, peaks in memory.items():
        label = "peak, video" if part == "video" else "peak before video"
        rows.append(
            _rated(
                {
                    "task": f"memory-{part}",
                    "what": label,
                    "unit": "MB",
                    "better": "lower",
                    "figures": {system: peak / 1e6 for system, peak in peaks.items()},
                }
            )
        )
    return rows


def make_tables(report: Mapping[str, Any]) -> list[Table]:
    """The figures, a line a system; then how many times better each is than transformers, and ours than llama.cpp."""
    settings, rows = report["settings"], report["rows"]
    systems = [*report["load"], *report["absent"]]
    title = f"{settings['size']}, {settings['threads']} threads, medians of {settings['rounds']} rounds"
    if settings["quick"]:
        title += " - QUICK: these figures mean nothing"
    tables = [_table(title, rows, systems, "figures", report["absent"])]
    tables.append(_table(f"times better than {BASE}", rows, systems, "vs_transformers", {}))
    tables.append(_table("times better than llama.cpp at the same bits", rows, systems, "vs_llama", {}))
    tables.append(_table(f"relative difference of the output from {EXACT}", rows, systems, "difference", {}))
    return [table for table in tables if table.row_count]


def _table(title: str, rows: Sequence[Row], systems: Sequence[str], key: str, absent: Mapping[str, str]) -> Table:
    reasons = [f"{system}: {reason}" for system, reason in absent.items()]
    table = Table(title=title, caption="\n".join(reasons), min_width=max(map(len, [title, *reasons])))
    table.add_column("", no_wrap=True)
    shown = [row for row in rows if row.get(key)]
    for row in shown:
        unit = f"\n{row['unit']}" if key == "figures" else ""
        table.add_column(row["what"] + unit, justify="right")
    for system in systems:
        if system in absent:
            table.add_row(system, "absent")
        elif key == "figures" or any(system in row[key] for row in shown):  # one that failed is a line of dashes
            table.add_row(system, *(_text(row[key].get(system)) for row in shown))
    return table


def _text(figure: float | None) -> str:
    if figure is None:
        return "-"
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def _row(task: str, what: str, unit: str, runs: Runs, *, key: str = "seconds", divide: float = 1, rate: float | None = None) -> Row:
    times = {system: [one[key] for one in some] for system, some in runs.items()}
    medians = {system: statistics.median(some) for system, some in times.items()}
    return _rated(
        {
            "task": task,
            "what": what,
            "unit": unit,
            "better": "lower" if rate is None else "higher",
            "figures": {system: s / divide if rate is None else rate / s for system, s in medians.items()},
            "spread": {system: round((max(some) - min(some)) / medians[system], 3) for system, some in times.items()},
            "rounds": {system: len(some) for system, some in times.items()},
        }
    )


def _rated(row: Row) -> Row:
    """The row with its ratios: above 1 is better than the peer, whichever way better lies."""
    figures: dict[str, float] = row["figures"]

    def times_better(system: str, peer: str) -> float:
        return figures[system] / figures[peer] if row["better"] == "higher" else figures[peer] / figures[system]

    if BASE in figures:
        row["vs_transformers"] = {system: times_better(system, BASE) for system in figures}
    if row["unit"] == "MB":  # llama.cpp holds the decoder alone
        return row
    row["vs_llama"] = {s: times_better(s, peer) for s, peer in SAME_BITS.items() if s in figures and peer in figures}
    return row


def _reference(runs: Runs) -> str | None:
    return next((system for system in (EXACT, BASE) if system in runs), None)


def _differences(runs: Runs) -> dict[str, float]:
    """|output - reference's| / |reference's| in the first round, from samples of both; infinite for one of another size."""
    name = _reference(runs)
    if name is None or "sample" not in runs[name][0]:
        return {}
    exact: Sequence[float] = runs[name][0]["sample"]
    samples = {system: some[0]["sample"] for system, some in runs.items() if "sample" in some[0]}
    return {
        system: math.dist(sample, exact) / math.hypot(*exact) if len(sample) == len(exact) else math.inf
        for system, sample in samples.items()
    }


def _agreements(runs: Runs) -> dict[str, str]:
    """Leading greedy tokens that agree with the reference's, over the rounds that both ran.

    Rounding differs, and with random weights near-ties are common: only a float32 peer agrees everywhere.
    """
    name = _reference(runs)
    if name is None or "tokens" not in runs[name][0]:
        return {}
    out = {}
    for system, some in runs.items():
        same = total = 0
        for one, exact in zip(some, runs[name], strict=False):
            pairs = list(zip(one["tokens"], exact["tokens"], strict=True))
            same += next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
            total += len(pairs)
        out[system] = f"{same}/{total}"
    return out
