"""DPO on a model's own mistakes: it answers training questions, its wrong answers become pairs, and held-out ones tell.

    python -m benchmarks.dpo_nano                   # nano, three seeds
    python -m benchmarks.dpo_nano --quick           # does it run?
    python -m benchmarks.dpo_nano --task people     # another task that it does poorly

For each seed the model answers other samples of the TRAIN split, greedily and once more at temperature 1. Each wrong
answer is written as a line of pairs.jsonl (chosen: the truth, rejected: the model's own words), the file that `smolvlm
train dpo --pairs` reads, and the model is trained to prefer the truth. Mistakes lean to one side (more bends are called
falls than falls overlooked), and learning from them alone turns the lean round: the rarer truths are filled up with
questions that were answered rightly.

Then the held-out items of the benchmark (TEST split: other seeds, fonts and backgrounds) are asked: the task itself,
and one that must not suffer. Every step is kept under .work and not repeated: to begin anew, remove .work/dpo-nano.
Prints a table and writes benchmarks/results/dpo-nano.json.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from PIL import Image
from rich.console import Console

import smolvlm
from benchmarks.improvement import ITEMS, MAX_NEW_TOKENS, HeldOut, Job, count, make_parser
from smolvlm.evals.metrics import exact
from smolvlm.evals.synth_suite import media_of
from smolvlm.synth.benchmark import TASKS, task_spec
from smolvlm.synth.generate import generate
from smolvlm.synth.sample import Question, Sample
from smolvlm.synth.video_file import SUFFIX, video_bytes
from smolvlm.train.dpo import DPOOptions, dpo
from smolvlm.train.tuning import result_folder
from smolvlm.vlm import SmolVLM

SEED_STEP = 1_000_000  # samples between the first ones of two seeds: no two seeds share a question
_BATCH = 16

Pair: TypeAlias = tuple[Sample, Question, str]  # the last: the rejected answer


@dataclass(frozen=True)
class Settings:
    """questions: of the TRAIN split, asked before training; only the wrong answers are learned from. sampled: how often
    each is asked again at temperature 1."""

    task: str = "fall"
    guard: str = "colour"
    questions: int = 800
    sampled: int = 1
    items: int = ITEMS
    method: str = "full"
    epochs: int = 2
    batch_size: int = 8
    lr: float = 5e-5
    beta: float = 0.5
    precision: str = "autocast"


def main() -> None:
    parser = make_parser(__doc__)
    default = Settings()
    parser.add_argument(
        "--task",
        choices=TASKS,
        default=default.task,
        metavar="TASK",
        help=f"what it should do better, a task of `smolvlm eval synth` ({default.task})",
    )
    parser.add_argument("--guard", choices=TASKS, default=default.guard, metavar="TASK", help=f"what must not suffer ({default.guard})")
    parser.add_argument("--questions", type=count, help=f"asked for mistakes, for each seed ({default.questions})")
    parser.add_argument(
        "--sampled",
        type=int,
        choices=range(9),
        default=default.sampled,
        metavar="N",
        help=f"answers at temperature 1 beside the greedy one ({default.sampled})",
    )
    parser.add_argument("--method", choices=("full", "lora"), default=default.method, help=f"({default.method})")
    parser.add_argument("--epochs", type=count, default=default.epochs, help=f"passes over the pairs ({default.epochs})")
    parser.add_argument("--lr", type=float, default=default.lr, help=f"the peak learning rate ({default.lr:g})")
    parser.add_argument("--beta", type=float, default=default.beta, help=f"the price of distance ({default.beta:g})")
    run(parser.parse_args())


def run(args: argparse.Namespace) -> None:
    """Everything, seed by seed."""
    settings = Settings(
        args.task,
        args.guard,
        args.questions or (48 if args.quick else Settings.questions),
        sampled=args.sampled,
        items=args.items or (20 if args.quick else ITEMS),
        method=args.method,
        epochs=args.epochs,
        lr=args.lr,
        beta=args.beta,
    )
    job = Job.from_args("dpo-nano", args, settings)
    started, console = time.monotonic(), Console(stderr=True)
    tasks = tuple(dict.fromkeys((settings.task, settings.guard)))
    held_out = HeldOut(tasks, settings.items, job.folder / "answers")
    before = held_out.score("before", job.model)
    console.print(f"before: {before} right of {settings.items}", highlight=False)
    after, pairs = [], []
    for seed in job.seeds:
        file = job.folder / f"pairs-{seed}" / "pairs.jsonl"
        if not file.exists():
            write_pairs(file, smolvlm.load(job.model), settings, seed)
        pairs.append(len(file.read_text(encoding="utf-8").splitlines()))
        options = dpo_options(job, settings, seed, file)
        result = dpo(options)
        trained = result_folder(options)
        where: tuple[Any, ...] = (trained,) if settings.method == "full" else (job.model, trained)
        after.append(held_out.score(f"after-{seed}", *where))
        at_end = ", ".join(f"{name} {value:.3f}" for name, value in result.metrics.items())
        console.print(f"seed {seed}: {pairs[-1]} pairs; {at_end}; {after[-1]} right", highlight=False)
    lines = held_out.lines("before", [before]) + held_out.lines("after DPO", after)
    job.report(lines, "before", console, started, pairs=pairs)


def dpo_options(job: Job, settings: Settings, seed: int, pairs: Path) -> DPOOptions:
    """What `smolvlm train dpo` would be told. The tower learns too, where whole weights are trained."""
    rates = dict.fromkeys(("lr_vision", "lr_connector", "lr_text"), settings.lr)
    return DPOOptions.for_method(
        settings.method,
        model=job.model,
        mixture=pairs,
        out=job.folder / f"run-{seed}",
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        beta=settings.beta,
        precision=settings.precision,
        seed=seed,
        progress_bar=False,
        warmup_ratio=0.1,
        **rates,
    )


def write_pairs(file: Path, model: SmolVLM, settings: Settings, seed: int) -> None:
    """Ask, and write a pair for each wrong answer, its media beside it; the file appears when all are written."""
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    asked = itertools.islice(train_questions(settings.task, seed * SEED_STEP), settings.questions)
    wrongs: list[Pair] = []
    rights: list[Pair] = []
    draws = itertools.count(seed * SEED_STEP)  # a seed for each round of sampled answers
    while batch := list(itertools.islice(asked, _BATCH)):
        conversations = [
            [{"role": "user", "content": [*media_of(sample), {"type": "text", "text": question.text}]}] for sample, question in batch
        ]
        rounds = [model.chat_many(conversations, max_new_tokens=MAX_NEW_TOKENS)]
        for draw in itertools.islice(draws, settings.sampled):
            rounds.append(model.chat_many(conversations, max_new_tokens=MAX_NEW_TOKENS, temperature=1.0, seed=draw))
        for (sample, question), *answers in zip(batch, *rounds, strict=True):
            said = mistakes(question.answer, [answer.text for answer in answers])
            wrongs += [(sample, question, wrong) for wrong in said]
            rights += [] if said else [(sample, question, "")]
    pairs = [
        {**write_media(sample, folder, f"{number:05d}"), "prompt": question.text, "chosen": question.answer, "rejected": wrong}
        for number, (sample, question, wrong) in enumerate(balanced(wrongs, rights))
    ]
    if not pairs:
        raise SystemExit(
            f"the model made no mistake in {settings.questions} questions of {settings.task}: choose a harder "
            "--task, or ask more --questions."
        )
    part = file.with_suffix(".part")
    part.write_text("".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs), encoding="utf-8")
    part.replace(file)


def balanced(wrongs: Sequence[Pair], rights: Sequence[Pair]) -> list[Pair]:
    """The wrong answers, and beside them, for each truth that has fewer, questions answered rightly: what is rejected there is
    the usual mistake about that truth. Mistakes that lean to one side would teach the model to lean to the other."""
    by_truth: dict[str, list[Pair]] = {}
    for pair in wrongs:
        by_truth.setdefault(pair[1].answer, []).append(pair)
    most = max(map(len, by_truth.values()), default=0)
    found = list(wrongs)
    for truth, pairs in by_truth.items():
        usual = statistics.mode(wrong for _, _, wrong in pairs)
        alike = [(sample, question, usual) for sample, question, _ in rights if question.answer == truth]
        found += alike[: most - len(pairs)]
    return found


def mistakes(truth: str, answers: Sequence[str]) -> list[str]:
    """The different answers that are wrong, in order. An empty one is left out: no pair can hold it."""
    return [said for said in dict.fromkeys(answer.strip() for answer in answers) if said and not exact(truth, said)]


def train_questions(task: str, first: int) -> Iterator[tuple[Sample, Question]]:
    """One question of the task for each sample of the TRAIN split that has one, from number `first` on, without end."""
    spec = task_spec(task)
    for index in itertools.count(first):
        sample = generate(spec.generator, "train", index)
        found = [question for question in sample.questions if question.task in spec.asked]
        if found:
            yield sample, found[index % len(found)]


def write_media(sample: Sample, folder: Path, stem: str) -> dict[str, Any]:
    """The sample's pictures or clip as files, in the words of a pair's JSON."""
    if sample.kind == "video":
        (folder / f"{stem}{SUFFIX}").write_bytes(video_bytes(sample))
        return {"video": f"{stem}{SUFFIX}"}
    names = [f"{stem}-{number}.png" for number in range(len(sample.frames))]
    for name, frame in zip(names, sample.frames, strict=True):
        Image.fromarray(frame).save(folder / name)
    return {"image": names}


if __name__ == "__main__":
    main()
