"""The 256M model in training: ten steps with whole weights and with QLoRA, their peak memory, and one batch learned by heart.

    python -m benchmarks.full_size_training                     # both methods
    python -m benchmarks.full_size_training --method qlora --steps 3 --most-steps 20 --batch-size 1

The weights are random, the pictures real (examples/media, one tile each), the training is `smolvlm finetune`'s. Each run
has a process of its own, so that its peak memory is its own. The ten steps go over different batches and end with the
save and the written checkpoint or adapter; the run on one batch stops when its loss falls under 0.1. Writes
benchmarks/results/full-size-training.json.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks import material
from benchmarks.machine import RESULTS, ROOT, WORK, describe_machine, peak_memory_bytes
from smolvlm.checkpoint import write_checkpoint
from smolvlm.checkpoint.random import CHAT_TEMPLATE, TINY, random_tensors
from smolvlm.checkpoint.random_tokenizer import official_tokenizer_json
from smolvlm.config import preset, processor_preset

METHODS = ("full", "qlora")
TARGET_LOSS = 0.1
_MEDIA = ROOT / "examples" / "media"
# The first two ask the same about different pictures: to know them by heart the model has to look.
EXAMPLES = (
    ("astronaut.png", "What is in the picture?", "An astronaut."),
    ("coffee.png", "What is in the picture?", "A cup of coffee."),
    ("chelsea.png", "Which animal is it?", "A cat."),
    ("rocket.jpg", "Is it day or night?", "Night."),
    ("astronaut.png", "Which colour is the suit?", "Orange."),
    ("coffee.png", "What lies beside the cup?", "A spoon."),
)
# The authors' rates are for trained weights; random ones need more. QLoRA at 2e-3 with rank 64 ran away at its fourth step.
RATES = {
    "full": {"lr_text": 5e-4, "lr_connector": 5e-4, "lr_vision": 5e-5},
    "qlora": {"lr_text": 1e-3, "lr_connector": 1e-3, "rank": 16, "alpha": 32.0},
}
# With the final norm at one, no hidden state whatever gets the frozen random head under a loss of 0.46 (the head's rows are
# 0.48 long, 576 wide: found by gradient descent on the hidden state itself). Trained checkpoints have larger norms; at
# four, the least possible loss is 2e-6 and an adapter can show what it learns.
_FINAL_NORM, _NORM_FACTOR = "model.text_model.norm.weight", 4


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is measured. most_steps: on one batch, before giving up. batch_size: pictures. threads: None for torch's choice.

    precision: as in `LoopOptions`; the published recipe is bfloat16, and products in it are several times faster on a CPU.
    """

    size: str = "256m"
    steps: int = 10
    most_steps: int = 100
    batch_size: int = 2
    precision: str = "autocast"
    threads: int | None = None


@dataclass(frozen=True)
class Job:
    """One run in one process. stop_below: end without saving once the loss is under it; None: run all steps and save."""

    method: str
    model: str
    data: str
    out: str
    steps: int
    stop_below: float | None
    batch_size: int
    precision: str
    threads: int | None


class _LearnedError(Exception):
    """Ends a run from within `on_step`."""


def train(job: Job) -> dict[str, Any]:
    """Run the job in this process. Losses, seconds and peak memory, all JSON-able."""
    import torch  # here: the process that starts the others needs none of it

    from smolvlm.train.finetune import FinetuneOptions, finetune
    from smolvlm.train.records import StepRecord

    if job.threads is not None:
        torch.set_num_threads(job.threads)
    imported_bytes = peak_memory_bytes()
    done: list[StepRecord] = []
    peaks: list[int] = []

    def on_step(record: StepRecord) -> None:
        done.append(record)
        peaks.append(peak_memory_bytes())
        print(f"    step {record.step}: loss {record.loss:.4f}, {record.seconds:.1f} s", file=sys.stderr, flush=True)
        if job.stop_below is not None and record.loss < job.stop_below:
            raise _LearnedError

    options = FinetuneOptions.for_method(
        job.method,
        model=job.model,
        mixture=Path(job.data),
        out=Path(job.out),
        steps=job.steps,
        detail="low",
        batch_size=job.batch_size,
        precision=job.precision,
        schedule="constant",
        warmup_ratio=0.0,
        validation_share=0.0,
        measure=False,
        progress_bar=False,
        **RATES[job.method],
    )
    with contextlib.suppress(_LearnedError):
        finetune(options, on_step=on_step)
    return {
        "losses": [record.loss for record in done],
        "grad_norms": [record.grad_norm for record in done],
        "seconds": [record.seconds for record in done],
        "threads": torch.get_num_threads(),
        "imported_bytes": imported_bytes,
        "peak_training_bytes": peaks[-1],
        "peak_bytes": peak_memory_bytes(),
        "trained_parameters": trained_parameters(Path(job.out)),
        "settings": {"batch_size": job.batch_size, "precision": job.precision, **RATES[job.method]},
    }


def trained_parameters(out: Path) -> int | None:
    """How many numbers the last save of a run holds as trained weights; None where nothing was saved."""
    from smolvlm.checkpoint.header import read_header
    from smolvlm.train.state import TENSORS_FILE, latest_state

    saved = latest_state(out)
    if saved is None:
        return None
    tensors = read_header(saved.folder / TENSORS_FILE)
    return sum(math.prod(info.shape) for name, info in tensors.items() if name.startswith("weights."))


def in_own_process(job: Job) -> dict[str, Any]:
    """The same, in a fresh process. Raises CalledProcessError where that fails; its words are on stderr."""
    command = [sys.executable, "-m", "benchmarks.full_size_training", "--job", json.dumps(vars(job))]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def write_data(path: Path, examples: Sequence[tuple[str, str, str]]) -> Path:
    """A JSONL as `smolvlm finetune` reads it."""
    rows = [{"image": str(_MEDIA / file), "question": asked, "answer": told} for file, asked, told in examples]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def checkpoint_for_an_adapter(size: str) -> Path:
    """The random checkpoint with a final norm as trained ones have it; see `_NORM_FACTOR`."""
    folder = WORK / f"random-{size}-bfloat16-norm{_NORM_FACTOR}"
    if (folder / "config.json").exists():
        return folder
    config = TINY if size == "tiny" else preset(size)
    factors = {_FINAL_NORM: _NORM_FACTOR}
    tensors = ((name, values * factors.get(name, 1)) for name, values in random_tensors(config))
    return write_checkpoint(folder, tensors, config, processor_preset(config), official_tokenizer_json(), CHAT_TEMPLATE, dtype="bfloat16")


def measure(method: str, asked: Asked) -> dict[str, Any]:
    """Both runs of one method: "steps" over different batches, "repeated" over one."""
    plain = material.checkpoint(asked.size, "bfloat16")
    learner = plain if method == "full" else checkpoint_for_an_adapter(asked.size)
    with tempfile.TemporaryDirectory(dir=WORK, prefix="training-") as folder:
        scratch = Path(folder)
        data = write_data(scratch / "data.jsonl", EXAMPLES)
        batch = write_data(scratch / "batch.jsonl", EXAMPLES[: asked.batch_size])
        common = (asked.batch_size, asked.precision, asked.threads)
        steps = Job(method, str(plain), str(data), str(scratch / "steps"), asked.steps, None, *common)
        repeated = Job(method, str(learner), str(batch), str(scratch / "repeated"), asked.most_steps, TARGET_LOSS, *common)
        return {"steps": in_own_process(steps), "repeated": in_own_process(repeated)}


def make_table(report: dict[str, Any]) -> Table:
    table = Table(title=f"{report['size']}, random weights, {report['asked']['precision']}")
    for column in ("method", "trained", "s/step", "peak, GB", "with saving, GB", "loss, steps", "loss, one batch"):
        table.add_column(column, justify="left" if column == "method" else "right")
    for method, runs in report["methods"].items():
        steps, repeated = runs["steps"], runs["repeated"]
        table.add_row(
            method,
            f"{steps['trained_parameters']:,}",
            f"{statistics.median(steps['seconds']):.1f}",
            f"{steps['peak_training_bytes'] / 1e9:.2f}",
            f"{steps['peak_bytes'] / 1e9:.2f}",
            f"{steps['losses'][0]:.2f} to {steps['losses'][-1]:.2f} in {len(steps['losses'])}",
            f"{repeated['losses'][0]:.2f} to {repeated['losses'][-1]:.3f} in {len(repeated['losses'])}",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--method", choices=(*METHODS, "both"), default="both")
    parser.add_argument("--size", default=Asked.size, help="tiny, or a preset such as 256m")
    parser.add_argument("--steps", type=int, default=Asked.steps, help="steps over different batches")
    parser.add_argument("--most-steps", type=int, default=Asked.most_steps, help="steps on one batch before giving up")
    parser.add_argument("--batch-size", type=int, default=Asked.batch_size, help="pictures a step")
    parser.add_argument("--precision", default=Asked.precision, help="float32, autocast or bfloat16")
    parser.add_argument("--threads", type=int, help="threads of torch (its own choice if not given)")
    parser.add_argument("--out", type=Path, default=RESULTS / "full-size-training.json")
    parser.add_argument("--job", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.job is not None:
        print(json.dumps(train(Job(**json.loads(args.job)))))
        return
    asked = Asked(
        size=args.size,
        steps=args.steps,
        most_steps=args.most_steps,
        batch_size=args.batch_size,
        precision=args.precision,
        threads=args.threads,
    )
    methods: dict[str, Any] = {}
    for method in METHODS if args.method == "both" else (args.method,):
        Console(stderr=True).print(f"{asked.size}, {method}", highlight=False)
        methods[method] = measure(method, asked)
    report = {"machine": describe_machine(), "size": asked.size, "asked": vars(asked), "target_loss": TARGET_LOSS, "methods": methods}
    Console().print(make_table(report))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
