"""Teach `nano` a part that it has never seen: 200 pictures, a LoRA adapter, and 200 other pictures to measure with.

    python examples/finetune_parts.py                     # writes runs/finetune-parts; needs pip install "smolvlm[train]"
    python examples/finetune_parts.py --model FOLDER --pictures 10 --held-out 10 --epochs 1     # a quick try

The part is a flange, sound (grade A) or cracked (B): neither kind nor defect is among what `nano` was trained on. Training
pictures come from the generator's "train" split and the others from "test", which share no seed and no background. A part may
lie on the belt in any way, so each training picture is shown in eight: turned by quarters, and mirrored. What is done is

    smolvlm finetune nano runs/finetune-parts/data --out runs/finetune-parts/run --method lora --adapt-vision ...

docs/finetune-parts.md explains it and shows the figures that are printed at the end.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

import smolvlm
from smolvlm.errors import TrainingError
from smolvlm.evals.metrics import wilson
from smolvlm.hub import resolve
from smolvlm.synth.parts import NEW_KIND, draw_part
from smolvlm.synth.sample import SPLITS, Split
from smolvlm.synth.sheet import Cell, Line, contact_sheet
from smolvlm.synth.world import SMALL
from smolvlm.train.accuracy import Accuracy
from smolvlm.train.finetune import FinetuneOptions, FinetuneResult, finetune

# Grades: nano can write the letters and cannot know what they stand for here. (Asked "Is this part cracked?", it is right in
# 143 of the 200 untaught, from the defects that it knows.) With "good" and "broken", which it never wrote, it stayed at 50 %.
QUESTION = "Which grade is this part, A or B?"
CLASSES = ("A", "B")  # sound, cracked: the folders' names are the answers
SEED = 1  # of the pictures
WAYS = 8  # quarter turns, and their mirror images
# fit: pictures of 192 pixels stay one tile, also for a published checkpoint, which would enlarge and split them. autocast:
# bfloat16 products, less than half the time on a CPU that has them.
RECIPE: dict[str, Any] = {"method": "lora", "adapt_vision": True, "batch_size": 16, "detail": "fit", "precision": "autocast"}
EPOCHS, RATE = 3, 1e-3


@dataclass(frozen=True)
class Outcome:
    """What the run gave. total_s: drawing, measuring, training and measuring again, in seconds."""

    result: FinetuneResult
    picture: Path
    total_s: float


def draw_set(folder: Path, split: Split, count: int, ways: int = 1) -> None:
    """`count` pictures of `split`, every other one cracked, as folder/A/0000.png and folder/B/0001.png; with `ways`
    up to 8 each turned and mirrored, as 0000-0.png, 0000-1.png and so on."""
    for name in CLASSES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng([SEED, SPLITS.index(split), number])
        cracked = number % 2
        sample = draw_part(rng, SMALL, split, kinds=(NEW_KIND,), defects=("crack",), defect_share=float(cracked))
        for way in range(ways):
            name = f"{number:04d}.png" if ways == 1 else f"{number:04d}-{way}.png"
            picture = np.rot90(sample.frames[0][:, ::-1] if way >= 4 else sample.frames[0], way)
            Image.fromarray(np.ascontiguousarray(picture)).save(folder / CLASSES[cracked] / name)
    found = sum(1 for _ in folder.glob("*/*.png"))
    if found != count * ways:
        raise TrainingError(f"{folder} holds {found - count * ways} other pictures, of a run of another size; name another --out.")


def teach(
    model: str,
    out: Path,
    *,
    pictures: int = 200,
    held_out: int = 200,
    epochs: int = EPOCHS,
    rate: float = RATE,
    seed: int = 0,
    say: Callable[[str], None] = print,
) -> Outcome:
    """Draw the pictures, train the adapter, measure before and after, and write `parts.png`. Raises SmolVLMError."""
    begin = time.perf_counter()
    resolve(model)  # a misspelt name shows before anything is drawn
    data = out / "data"
    draw_set(data / "train", "train", pictures, WAYS)
    draw_set(data / "validation", "test", held_out)
    rates: dict[str, Any] = dict.fromkeys(("lr_vision", "lr_connector", "lr_text"), rate)
    options = FinetuneOptions.for_method(
        **RECIPE, **rates, model=model, mixture=data, out=out / "run", epochs=epochs, question=QUESTION, seed=seed
    )
    result = finetune(options, on_note=say)
    total_s = time.perf_counter() - begin
    picture = show(model, result, data / "validation", out / "parts.png")
    return Outcome(result, picture, total_s)


def show(model: str, result: FinetuneResult, held_out: Path, path: Path, each: int = 4) -> Path:
    """A page with the first held-out pictures of each class, and what is answered without and with the adapter."""
    files = [(name, file) for name in CLASSES for file in sorted((held_out / name).glob("*.png"))[:each]]
    answers = []
    for adapter in (None, result.result):
        asked = smolvlm.load(model, adapter=adapter)
        answers.append([asked.choose(file, QUESTION, list(CLASSES), detail=RECIPE["detail"]) for _, file in files])
    cells = []
    for (name, file), before, after in zip(files, *answers, strict=True):
        lines = [
            Line(f"{when}: {choice.option} ({choice.probability:.0%})", "good" if choice.option == name else "bad")
            for when, choice in (("before", before), ("after", after))
        ]
        with Image.open(file) as picture:
            cells.append(Cell(picture.convert("RGB"), (Line(f"truth: {name}"), *lines)))
    contact_sheet(cells, columns=each).save(path)
    return path


def figures(outcome: Outcome) -> str:
    """The table of docs/finetune-parts.md."""
    rows = [
        f"| {when} | {of.right} of {of.total} | {of.share:.1%} | {low:.1%} - {high:.1%} |"
        for when, of in (("before", outcome.result.before), ("after", outcome.result.after))
        if isinstance(of, Accuracy)
        for low, high in [wilson(of.right, of.total)]
    ]
    steps = outcome.result.train.steps
    return "\n".join(
        [
            "| | held-out pictures right | share | 95 % interval |",
            "| --- | --- | --- | --- |",
            *rows,
            "",
            f"{steps} steps; {outcome.total_s / 60:.1f} minutes in all, on {os.cpu_count()} CPU cores or what GPU there is.",
        ]
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="nano", help="a checkpoint folder, a short name or a Hub id")
    parser.add_argument("--out", type=Path, default=Path("runs/finetune-parts"), help="a new folder, or one to go on in")
    parser.add_argument("--pictures", type=int, default=200, help="how many to learn from")
    parser.add_argument("--held-out", type=int, default=200, help="how many to measure with")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the pictures")
    parser.add_argument("--seed", type=int, default=0, help="of the adapter's first values and the order of the pictures")
    parser.add_argument("--rate", type=float, default=RATE, help="peak learning rate")
    args = parser.parse_args()
    outcome = teach(
        args.model, args.out, pictures=args.pictures, held_out=args.held_out, epochs=args.epochs, rate=args.rate, seed=args.seed
    )
    print(f"\n{figures(outcome)}\n\npicture: {outcome.picture}")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except smolvlm.SmolVLMError as error:
        sys.exit(f"finetune_parts: error: {error}")
