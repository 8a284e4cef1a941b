"""DPO for a taste: nano describes a picture with the place of every thing, and learns that shorter is preferred.

    python -m benchmarks.dpo_brief                  # nano, three seeds
    python -m benchmarks.dpo_brief --quick          # does it run?

Both answers of a pair are true: "a red star at the top left and a dog on the right" is rejected, "a red star and a dog"
is chosen. Pictures come from the TRAIN split, others for each seed, and are written as the file that `smolvlm train dpo
--pairs` reads. Then held-out captions (TEST split: other seeds and backgrounds) are counted that are right, every thing
with its colour and none invented, and those that are right and brief; and another task, which must not suffer. Every step
is kept under .work and not repeated. Prints a table and writes benchmarks/results/dpo-brief.json.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import count as numbers
from itertools import islice
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.dpo_nano import SEED_STEP, dpo_options, write_media
from benchmarks.improvement import ITEMS, HeldOut, Job, count, make_parser, word_for_word
from smolvlm.evals.metrics import things
from smolvlm.evals.suite import Case
from smolvlm.synth.generate import generate
from smolvlm.synth.questions import in_reading_order
from smolvlm.synth.sample import Question, Sample
from smolvlm.synth.words import listed, with_article
from smolvlm.train.dpo import dpo
from smolvlm.train.tuning import result_folder

_TASK, _BRIEF = "caption", "caption, right and brief"


@dataclass(frozen=True)
class Settings:
    """samples: pictures of the TRAIN split, a pair each, for each seed."""

    guard: str = "colour"
    samples: int = 200
    items: int = ITEMS
    method: str = "lora"
    epochs: int = 2
    batch_size: int = 8
    lr: float = 5e-4
    beta: float = 0.1
    precision: str = "autocast"


def main() -> None:
    parser = make_parser(__doc__)
    default = Settings()
    parser.add_argument("--samples", type=count, help=f"pairs to learn from, for each seed ({default.samples})")
    parser.add_argument("--method", choices=("full", "lora"), default=default.method, help=f"({default.method})")
    parser.add_argument("--epochs", type=count, default=default.epochs, help=f"passes over the pairs ({default.epochs})")
    parser.add_argument("--lr", type=float, default=default.lr, help=f"the peak learning rate ({default.lr:g})")
    parser.add_argument("--beta", type=float, default=default.beta, help=f"the price of distance ({default.beta:g})")
    run(parser.parse_args())


def run(args: argparse.Namespace) -> None:
    """Everything, seed by seed."""
    settings = Settings(samples=args.samples or (24 if args.quick else Settings.samples),
                        items=args.items or (20 if args.quick else ITEMS), method=args.method, epochs=args.epochs,
                        lr=args.lr, beta=args.beta)  # fmt: skip
    job = Job.from_args("dpo-brief", args, settings)
    started, console = time.monotonic(), Console(stderr=True)
    held_out = HeldOut((_TASK, settings.guard), settings.items, job.folder / "answers", change=ask_for_brevity)
    before = held_out.score("before", job.model)
    console.print(f"before: {before} right of {settings.items}", highlight=False)
    after = []
    for seed in job.seeds:
        file = job.folder / f"pairs-{seed}" / "pairs.jsonl"
        if not file.exists():
            write_pairs(file, settings.samples, seed)
        options = dpo_options(job, settings, seed, file)
        result = dpo(options)
        trained = result_folder(options)
        where: tuple[Any, ...] = (trained,) if settings.method == "full" else (job.model, trained)
        after.append(held_out.score(f"after-{seed}", *where))
        at_end = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
        console.print(f"seed {seed}: {at_end}; {after[-1]} right", highlight=False)
    lines = [replace(line, task=_BRIEF) if line.task == word_for_word(_TASK) else line
             for line in held_out.lines("before", [before]) + held_out.lines("after DPO", after)]  # fmt: skip
    job.report(lines, "before", console, started)


def brief(sample: Sample) -> str:
    """ "a red star and a dog": every thing of a picture, in reading order, and no places."""
    return listed([with_article(item.phrase) for item in in_reading_order(sample.truths[0].items)])


def captions(first: int) -> Iterator[tuple[Sample, Question]]:
    """The pictures of the TRAIN split that a caption is asked of, from number `first` on, without end."""
    for index in numbers(first):
        sample = generate("scene", "train", index)
        yield from ((sample, question) for question in sample.questions if question.task == _TASK)


def write_pairs(file: Path, samples: int, seed: int) -> None:
    """A pair a picture, its media beside it; the file appears when all are written."""
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    part = file.with_suffix(".part")
    with part.open("w", encoding="utf-8") as table:
        for number, (sample, question) in enumerate(islice(captions(seed * SEED_STEP), samples)):
            pair = {"prompt": question.text, "chosen": brief(sample), "rejected": question.answer}
            table.write(json.dumps(write_media(sample, folder, f"{number:05d}") | pair) + "\n")
    part.replace(file)


def ask_for_brevity(case: Case) -> Case:
    """The held-out case, a caption's with the brief one as the expected answer."""
    return replace(case, expected=without_places(case.expected)) if case.task == _TASK else case


def without_places(caption: str) -> str:
    """The same things in the same order, as `brief` would say it."""
    return listed([with_article(thing) for thing in things(caption)])


if __name__ == "__main__":
    main()
