"""Right answers by task, with their intervals and the constant-answer baseline: as data, JSON and tables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvlm import __version__
from smolvlm.errors import EvalError
from smolvlm.evals.metrics import constant_baseline, wilson
from smolvlm.evals.results import Result
from smolvlm.evals.suite import Suite

if TYPE_CHECKING:
    from rich.table import Table

HEADER = ("task", "items", "right", "95 % interval", "constant answer")
REPORT_FILE = "report.json"


@dataclass(frozen=True)
class Row:
    """One task. Shares are 0..1; low and high are Wilson's 95 % interval. strict_share: answers right word for word, which
    differs for captions only. baseline: what always saying `baseline_answer` would score, word for word."""

    task: str
    description: str
    items: int
    right: int
    share: float
    low: float
    high: float
    strict_share: float
    baseline: float
    baseline_answer: str
    is_caption: bool = False


@dataclass(frozen=True)
class Report:
    """What a run found. `identity` says of what: model, fingerprint, suite with its version, settings."""

    identity: Mapping[str, Any]
    rows: tuple[Row, ...]
    seconds: float  # of this run: less when it went on from an earlier one

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, as report.json holds it."""
        return {
            **self.identity,
            "smolvlm": __version__,
            "seconds": round(self.seconds, 1),
            "tasks": [{name: round(v, 4) if isinstance(v, float) else v for name, v in asdict(row).items()} for row in self.rows],
        }

    @property
    def title(self) -> str:
        """As in "synth, version 1, small world: MODEL"."""
        world = f", {self.identity['world']} world" if "world" in self.identity else ""
        return f"{self.identity['suite']}, version {self.identity['suite_version']}{world}: {self.identity['model']}"

    def save(self, folder: Path) -> Path:
        """Write report.json, whole or not at all. Raises EvalError when the folder cannot be written."""
        path = folder / REPORT_FILE
        try:
            folder.mkdir(parents=True, exist_ok=True)
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(temporary, path)
        except OSError as error:
            raise EvalError(f"{path}: cannot be written ({error.strerror}); pass another folder.") from None
        return path


def make_report(suite: Suite, identity: Mapping[str, Any], results: Mapping[str, Sequence[Result]], seconds: float) -> Report:
    """Count the results of each task."""
    return Report(identity, tuple(_row(suite, name, found) for name, found in results.items()), seconds)


def _row(suite: Suite, name: str, results: Sequence[Result]) -> Row:
    right, total = sum(result.right for result in results), len(results)
    low, high = wilson(right, total)
    answer, share = constant_baseline([result.expected for result in results])
    strict = sum(result.strict for result in results)
    task = suite.tasks[name]
    return Row(
        name, task.description, total, right, right / max(total, 1), low, high, strict / max(total, 1), share, answer, task.is_caption
    )


def cells(report: Report) -> list[tuple[str, ...]]:
    """The table's rows as text, in the order of HEADER; captions get a second row for the strict count."""
    table: list[tuple[str, ...]] = []
    for row in report.rows:
        table.append(
            (
                row.task,
                str(row.items),
                percent(row.share),
                f"{percent(row.low)} - {percent(row.high)}",
                f"{percent(row.baseline)} {_shortened(row.baseline_answer)}",
            )
        )
        if row.is_caption:
            low, high = wilson(round(row.strict_share * row.items), row.items)
            table.append(
                (f"{row.task} (word for word)", str(row.items), percent(row.strict_share), f"{percent(low)} - {percent(high)}", "")
            )
    return table


def plain_table(report: Report) -> str:
    """Columns held apart by spaces, numbers to the right."""
    rows = [HEADER, *cells(report)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(HEADER))]
    lines = [
        "  ".join(
            cell.rjust(width) if 0 < i < 4 else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join((report.title, *lines)) + "\n"


def markdown(report: Report) -> str:
    """A table for a README; the caption names model, fingerprint and version."""
    print_of = report.identity.get("fingerprint")
    lines = [
        f"{report.title}" + (f" (weights {print_of})" if print_of else ""),
        "",
        "| " + " | ".join(HEADER) + " |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in cells(report)]
    return "\n".join(lines) + "\n"


def rich_table(report: Report) -> Table:
    """The same table for a terminal."""
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(report.title), title_justify="left")
    for i, name in enumerate(HEADER):
        table.add_column(name, justify="right" if 0 < i < 4 else "left")
    for row in cells(report):
        table.add_row(*map(escape, row))
    return table


def percent(share: float) -> str:
    """As in "83.2 %"."""
    return f"{100 * share:.1f} %"


def _shortened(answer: str) -> str:
    return f'"{answer}"' if len(answer) <= 28 else f'"{answer[:25]}..."'
