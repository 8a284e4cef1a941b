"""From the times of answers to figures, to the marks that they must reach, to a Markdown table and a chart."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

Cell = Mapping[str, Any]  # one system, one kind of picture, one number of clients, one round; see benchmarks/serving.py
Row = dict[str, Any]

_MARK_CLIENTS = 16
_COLOURS = {"ours": "#d1495b", "ours-q8": "#edae49", "llama-server": "#30638e", "transformers": "#8d99ae"}


def gaps(answer: Mapping[str, Any]) -> list[float]:
    """Seconds between one piece of an answer's text and the next."""
    return [after - before for before, after in itertools.pairwise(answer["pieces"])]


def summarize(cells: Iterable[Cell]) -> list[Row]:
    """A row for each system, picture and number of clients: rates as medians of the rounds, times over all their answers.

    A rate counts from the first question to the last answer's end. A round that failed is left out.
    """
    together: dict[tuple[str, int, str], list[Cell]] = {}
    for cell in cells:
        if cell["task"] == "load" and "error" not in cell:
            together.setdefault((cell["picture"], cell["clients"], cell["system"]), []).append(cell)
    rows = []
    for (picture, clients, system), rounds in together.items():
        rates, speeds = [], []
        for cell in rounds:
            seconds = max(answer["over"] for answer in cell["answers"])
            rates.append(len(cell["answers"]) / seconds)
            speeds.append(sum(answer["new_tokens"] for answer in cell["answers"]) / seconds)
        answers = [answer for cell in rounds for answer in cell["answers"]]
        between = [gap for answer in answers for gap in gaps(answer)]
        rows.append(
            {
                "picture": picture,
                "clients": clients,
                "system": system,
                "rounds": len(rounds),
                "requests": len(answers),
                "requests_per_s": statistics.median(rates),
                "spread": (max(rates) - min(rates)) / statistics.median(rates),
                "tokens_per_s": statistics.median(speeds),
                "first_token_s": _percentiles(answer["pieces"][0] - answer["asked"] for answer in answers),
                "between_tokens_s": _percentiles(between),
                "prompt_tokens": sorted({answer["prompt_tokens"] for answer in answers}),
                "new_tokens": sorted({answer["new_tokens"] for answer in answers}),
                "pieces": sum(len(answer["pieces"]) for answer in answers),  # of text; fewer than tokens where one has none
            }
        )
    return rows


def follow_ups(cells: Iterable[Cell]) -> list[Row]:
    """A row a system: the median time to the first token of a first and of a second question on the same picture."""
    together: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for cell in cells:
        if cell["task"] == "follow-up" and "error" not in cell:
            together.setdefault((cell["picture"], cell["system"]), []).extend(cell["answers"])
    rows = []
    for (picture, system), answers in together.items():
        times = [answer["pieces"][0] - answer["asked"] for answer in answers]
        first, second = statistics.median(times[::2]), statistics.median(times[1::2])  # they were asked in turn
        rows.append(
            {
                "picture": picture,
                "system": system,
                "pictures": len(times) // 2,
                "first_s": first,
                "second_s": second,
                "times": first / second,
            }
        )
    return rows


def marks(rows: Sequence[Row], followed: Sequence[Row], picture: str, ours: str = "ours") -> dict[str, float]:
    """What was promised of `picture` and the system `ours`: requests/s against each peer at 16 clients (3 or more); the slowest
    1 % of the gaps between tokens against the median of a single client (less than 4); how much sooner a second question is
    answered (5)."""
    of = {(row["system"], row["clients"]): row for row in rows if row["picture"] == picture}
    found: dict[str, float] = {}
    mine, alone = of.get((ours, _MARK_CLIENTS)), of.get((ours, 1))
    for peer in ("llama-server", "transformers"):
        theirs = of.get((peer, _MARK_CLIENTS))
        if mine and theirs:
            found[f"requests/s at {_MARK_CLIENTS} clients, times {peer}"] = mine["requests_per_s"] / theirs["requests_per_s"]
    for (system, clients), row in sorted(of.items()):
        if system == ours and alone and row["between_tokens_s"] and alone["between_tokens_s"]:
            ratio = row["between_tokens_s"]["p99"] / alone["between_tokens_s"]["p50"]
            found[f"between tokens, p99 at {clients} clients / median of one"] = ratio
    for row in followed:
        if (row["system"], row["picture"]) == (ours, picture):
            found["second question on a picture, times sooner"] = row["times"]
    return found


def markdown(rows: Sequence[Row], followed: Sequence[Row]) -> str:
    """The tables that people read."""
    lines = [
        "| picture | clients | system | requests | requests/s | tokens/s | first token p50 / p99, s | between tokens p50 / p99 / max, ms |",
        "| --- | ---: | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        first, between = row["first_token_s"], row["between_tokens_s"]
        text = " / ".join(f"{1e3 * between[name]:.1f}" for name in ("p50", "p99", "max")) if between else "-"
        lines.append(
            f"| {row['picture']} | {row['clients']} | {row['system']} | {row['requests']} | {row['requests_per_s']:.3f} "
            f"| {row['tokens_per_s']:.1f} | {first['p50']:.2f} / {first['p99']:.2f} | {text} |"
        )
    if followed:
        lines += ["", "| picture | system | first question, s | second, s | times sooner |", "| --- | --- | ---: | ---: | ---: |"]
        lines += [
            f"| {row['picture']} | {row['system']} | {row['first_s']:.3f} | {row['second_s']:.3f} | {row['times']:.1f} |"
            for row in followed
        ]
    return "\n".join(lines)


def draw(report: Mapping[str, Any], picture: str, out: Path) -> bool:
    """Write a PNG with a panel a figure over the number of clients. False where matplotlib or the figures are missing."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogLocator, NullFormatter
    except ModuleNotFoundError:
        return False
    rows = [row for row in report["rows"] if row["picture"] == picture]
    if not rows:
        return False
    clients = sorted({row["clients"] for row in rows})
    figure = Figure(figsize=(12.4, 3.4), layout="constrained")
    panels = figure.subplots(1, 3)
    for system in dict.fromkeys(row["system"] for row in rows):
        own = sorted((row for row in rows if row["system"] == system), key=lambda row: row["clients"])
        at = [clients.index(row["clients"]) for row in own]
        style = {"color": _COLOURS.get(system), "marker": "o", "markersize": 4}
        panels[0].plot(at, [row["requests_per_s"] for row in own], label=system, **style)
        for axes, key, scale in ((panels[1], "first_token_s", 1), (panels[2], "between_tokens_s", 1e3)):
            known = [(place, row[key]) for place, row in zip(at, own, strict=True) if row[key]]
            for name, line in (("p50", "-"), ("p99", ":")):
                axes.plot(
                    [place for place, _ in known],
                    [scale * times[name] for _, times in known],
                    label=f"{system} {name}",
                    linestyle=line,
                    **style,
                )
    titles = ("Requests a second", "Seconds to the first token", "Milliseconds between tokens")
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=10)
        axes.set_xticks(range(len(clients)), [str(count) for count in clients])
        axes.set_xlabel("clients at once", fontsize=9)
        axes.tick_params(labelsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(fontsize=7, frameon=False)
    panels[0].set_ylim(bottom=0)
    for axes in panels[1:]:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    settings, machine = report["settings"], report["machine"]
    quick = " - QUICK, meaningless" if settings["quick"] else ""
    figure.suptitle(
        f"{settings['model']}: a picture and {settings['new_tokens']} new tokens a request, {machine['cpu']}, "
        f"{settings['threads']} threads{quick}",
        fontsize=11,
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    return True


def _percentiles(times: Iterable[float]) -> dict[str, float] | None:
    """p50, p99 (between neighbours in proportion) and the longest; None of nothing."""
    some = list(times)
    if not some:
        return None
    p50, p99 = np.percentile(some, [50, 99])
    return {"p50": float(p50), "p99": float(p99), "max": max(some)}
