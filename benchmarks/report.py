"""From rounds of seconds to rows of medians and ratios, and to the table that people read."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # system -> its rounds


def summarise(requests: Mapping[str, Mapping[str, Any]], results: Mapping[str, Runs],
              systems: Sequence[str]) -> list[dict[str, Any]]:  # fmt: skip
    """One row a figure. `ratio` says how many times better the first system is, whichever way better lies."""
    rows: list[dict[str, Any]] = []
    for task, runs in results.items():
        request = requests[task]
        if task == "vision":
            rows.append(_row(f"vision, {request['tiles']} tiles", "s/tile", runs, systems, divide=request["tiles"]))
        elif task == "prefill":
            rows.append(_row("prefill", "tokens/s", runs, systems, rate=request["tokens"]))
            rows[-1]["agreement"] = _agreement(runs, systems)
        elif task == "decode":
            rows.append(_row("decode after 256 tokens", "tokens/s", runs, systems, rate=request["new_tokens"]))
            rows[-1]["agreement"] = _agreement(runs, systems)
        else:
            tokens = next(iter(runs.values()))[0]["prompt_tokens"]
            name = f"{task}, {tokens}-token prompt"
            rows.append(_row(f"{name}, {request['new_tokens']} new tokens", "s", runs, systems))
            rows[-1]["agreement"] = _agreement(runs, systems)
            rows[-1]["prompt_tokens"] = {system: runs[system][0]["prompt_tokens"] for system in systems}
            rows.append(_row(f"{name}, first token", "s", runs, systems, key="first_token_s"))
    return rows


def make_table(rows: Sequence[Mapping[str, Any]], systems: Sequence[str], title: str) -> Table:
    """Figures with three digits, the ratio, and how many of the greedy tokens agree."""
    table = Table(title=title)
    table.add_column("", no_wrap=True)
    for system in systems:
        table.add_column(system, justify="right")
    table.add_column("unit")
    table.add_column("times better", justify="right")
    table.add_column("same tokens", justify="right")
    for row in rows:
        figures = [f"{row[system]:,.0f}" if row[system] >= 100 else f"{row[system]:.3g}" for system in systems]
        table.add_row(row["what"], *figures, row["unit"], f"{row['ratio']:.2f} x", row.get("agreement", ""))
    return table


def _row(what: str, unit: str, runs: Runs, systems: Sequence[str], *, key: str = "seconds", divide: float = 1,
         rate: float | None = None) -> dict[str, Any]:  # fmt: skip
    seconds = {system: statistics.median(run[key] for run in runs[system]) for system in systems}
    figures = {system: s / divide if rate is None else rate / s for system, s in seconds.items()}
    better = "lower" if rate is None else "higher"
    return {"what": what, "unit": unit, "better": better, **figures, "ratio": seconds[systems[1]] / seconds[systems[0]]}


def _agreement(runs: Runs, systems: Sequence[str]) -> str:
    """Leading greedy tokens that agree, over all rounds: a fast wrong answer should not go unseen.

    In float32 all agree; in bfloat16 the two round differently, and with random weights near-ties are common.
    """
    same = total = 0
    for ours, theirs in zip(*(runs[system] for system in systems), strict=True):
        pairs = list(zip(ours["tokens"], theirs["tokens"], strict=True))
        same += next((i for i, (a, b) in enumerate(pairs) if a != b), len(pairs))
        total += len(pairs)
    return f"{same}/{total}"
