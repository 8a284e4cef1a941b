"""What the training benchmarks share: held-out questions, scores by seed, the table, the JSON, and folders to go on from."""

from __future__ import annotations

import argparse
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import smolvlm
from benchmarks.machine import RESULTS, WORK, describe_machine
from smolvlm.checkpoint.identity import fingerprint_of
from smolvlm.evals.metrics import wilson
from smolvlm.evals.runner import evaluate
from smolvlm.evals.suite import Case
from smolvlm.evals.synth_suite import synth_suite
from smolvlm.hub import resolve
from smolvlm.synth.benchmark import task_spec

SEEDS = (0, 1, 2)
ITEMS = 250  # held-out questions of a task: a 95 % interval of at most +- 6 points
MAX_NEW_TOKENS = 32  # the longest sentence about a clip takes about twenty


@dataclass(frozen=True)
class Line:
    """One system on one task: how many of the same `items` held-out questions are right, by seed.

    What was not trained has one count. spread: the standard deviation over seeds, in shares (0 for one seed).
    """

    system: str
    task: str
    items: int
    right: tuple[int, ...]

    @property
    def shares(self) -> tuple[float, ...]:
        return tuple(right / self.items for right in self.right)

    @property
    def mean(self) -> float:
        return statistics.fmean(self.shares)

    @property
    def spread(self) -> float:
        return statistics.stdev(self.shares) if len(self.right) > 1 else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the mean over `items` questions: seeds share the questions, so they are not added up."""
        return wilson(round(statistics.fmean(self.right)), self.items)

    def to_dict(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "system": self.system,
            "task": self.task,
            "items": self.items,
            "right": list(self.right),
            "shares": [round(share, 4) for share in self.shares],
            "mean": round(self.mean, 4),
            "spread": round(self.spread, 4),
            "low": round(low, 4),
            "high": round(high, 4),
        }


def gain(line: Line, base: Line) -> float:
    """How much larger the mean share is than that of `base`, which was asked the same questions."""
    assert (line.task, line.items) == (base.task, base.items), "a gain is between answers to the same questions"
    return line.mean - base.mean


class HeldOut:
    """`items` questions of each task, from the benchmark's test split, drawn once. Answers are kept in `folder`."""

    def __init__(self, tasks: Sequence[str], items: int, folder: Path) -> None:
        self.tasks, self.items, self.folder = tuple(tasks), items, folder
        suite = synth_suite()
        self._cases = {task: list(suite.cases(task, items, 0)) for task in self.tasks}
        self._suite = replace(suite, cases=self._drawn)

    def _drawn(self, task: str, count: int, first: int) -> Iterator[Case]:
        return iter(self._cases[task][first:count])

    def score(self, name: str, model: str | Path, adapter: Path | None = None) -> dict[str, int]:
        """Right answers by task, greedily; of captions also those that are right `word_for_word`. A model that was scored
        under this `name` before is not asked again."""
        loaded = smolvlm.load(model, adapter=adapter)
        loaded.name = name  # not the folder, which is another one on each machine
        report = evaluate(
            loaded,
            self._suite,
            tasks=self.tasks,
            items=self.items,
            out=self.folder / name,
            fingerprint=fingerprint_of(resolve(str(model)), adapter),
            max_new_tokens=MAX_NEW_TOKENS,
        )
        right = {row.task: row.right for row in report.rows}
        return right | {
            word_for_word(row.task): round(row.strict_share * row.items) for row in report.rows if task_spec(row.task).is_caption
        }

    def lines(self, system: str, scores: Sequence[Mapping[str, int]]) -> list[Line]:
        """One line a task from what `score` returned for each seed."""
        return [Line(system, task, self.items, tuple(score[task] for score in scores)) for task in scores[0]]


def word_for_word(task: str) -> str:
    """What the stricter of a caption task's two counts is called."""
    return f"{task} (word for word)"


@dataclass(frozen=True)
class Job:
    """One invocation: its seeds, its settings (all that changes figures), where it works and where it reports.

    folder: .work/NAME/HASH, by the settings and the weights that are started from, so that a killed run is gone on with
    and a run of another model or other settings never meets its files.
    """

    name: str
    model: str
    seeds: tuple[int, ...]
    settings: Mapping[str, Any]
    folder: Path
    out: Path

    @classmethod
    def from_args(cls, name: str, args: argparse.Namespace, settings: Any) -> Job:
        """`settings` is a dataclass of plain values."""
        print_of = fingerprint_of(resolve(args.model))
        values = {**asdict(settings), "weights": print_of}
        key = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
        out = args.out or RESULTS / f"{name}{'-quick' if args.quick else ''}.json"
        return cls(name, args.model, args.seeds, values, args.work / name / key, out)

    def report(self, lines: Sequence[Line], base: str, console: Console, started: float, **more: Any) -> None:
        """Print the table with gains over the system `base`, and write the JSON."""
        title = f"{self.name}: held-out questions answered right, seeds {', '.join(map(str, self.seeds))}"
        Console(width=max(console.width, 100)).print(make_table(lines, base, title))
        bases = {line.task: line for line in lines if line.system == base}
        content = {
            "command": " ".join([Path(sys.executable).name, "-m", f"benchmarks.{self.name.replace('-', '_')}", *sys.argv[1:]]),
            "machine": describe_machine(),
            "model": self.model,
            "seeds": list(self.seeds),
            "settings": dict(self.settings),
            "seconds": round(time.monotonic() - started, 1),
            **more,
            "rows": [{**line.to_dict(), "gain": round(gain(line, bases[line.task]), 4)} for line in lines],
        }
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        console.print(f"written: {self.out}", highlight=False)


def make_table(lines: Sequence[Line], base: str, title: str) -> Table:
    """Shares by seed, their mean and spread, and the gain over `base` in points."""
    bases = {line.task: line for line in lines if line.system == base}
    table = Table(title=title, title_justify="left")
    for name in ("task", "model"):
        table.add_column(name, no_wrap=True)
    for name in ("by seed, %", "mean, %", "spread", "95 % interval", f"gain over {base}"):
        table.add_column(name, justify="right")
    for line in sorted(lines, key=lambda line: list(bases).index(line.task)):
        low, high = line.interval
        change = "" if line.system == base else f"{100 * gain(line, bases[line.task]):+.1f}"
        table.add_row(
            line.task,
            line.system,
            "  ".join(f"{100 * share:.1f}" for share in line.shares),
            f"{100 * line.mean:.1f}",
            f"{100 * line.spread:.1f}" if len(line.right) > 1 else "",
            f"{100 * low:.1f} - {100 * high:.1f}",
            change,
        )
    return table


def make_parser(doc: str | None) -> argparse.ArgumentParser:
    """The arguments that both benchmarks have."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="what is improved: a short name or a checkpoint's folder (nano)")
    parser.add_argument("--seeds", type=seed_list, default=SEEDS, metavar="0,1,2", help="each trains once (0,1,2)")
    parser.add_argument("--items", type=count, help=f"held-out questions of each task ({ITEMS})")
    parser.add_argument("--quick", action="store_true", help="a minute: few samples and items; shows that it runs, not what it gains")
    parser.add_argument("--work", type=Path, default=WORK, help="where data, runs and answers are kept, to go on from (.work)")
    parser.add_argument("--out", type=Path, help="the JSON file (benchmarks/results/...)")
    return parser


def seed_list(text: str) -> tuple[int, ...]:
    """Reads "0,1,2" as (0, 1, 2)."""
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts) or len(set(map(int, parts))) < len(parts):
        raise argparse.ArgumentTypeError(f"{text!r}: expected different whole numbers with commas, such as 0,1,2")
    return tuple(map(int, parts))


def count(text: str) -> int:
    """A whole number of at least 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number of at least 1")
    return int(text)
