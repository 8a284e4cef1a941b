"""Distillation into a smaller student: layers are taken out of nano, and nano teaches what is left of itself.

    python -m benchmarks.distill_nano               # nano, three seeds
    python -m benchmarks.distill_nano --quick       # does it run?
    python -m benchmarks.distill_nano --drop-text 3 --drop-vision 1,2

The student is an ordinary checkpoint with fewer layers, written by the package's own writer. For each seed it is
trained twice on the same pictures of the TRAIN split, in the same order, for as many steps at the same rates: on the
answers alone (`smolvlm train sft`), and on the answers and the teacher's distribution over each next token
(`smolvlm train distill --teacher nano`). The benchmark's held-out items (TEST split: other seeds, fonts and backgrounds)
are asked of the teacher, of the cut student before, and after both. Every step is kept under .work and not repeated.
Prints a table and writes benchmarks/results/distill-nano.json.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from PIL import Image
from rich.console import Console

from benchmarks.improvement import ITEMS, HeldOut, Job, count, make_parser, seed_list
from smolvlm.checkpoint.layout import tensor_shapes
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.checkpoint.writer import write_checkpoint
from smolvlm.config import load_configs
from smolvlm.hub import resolve
from smolvlm.options.training import TrainOptions
from smolvlm.prompt.template import ChatTemplate
from smolvlm.synth.export import record_of
from smolvlm.synth.generate import generate
from smolvlm.train.distill import DistillOptions, distill
from smolvlm.train.distill_objective import DistillWeights
from smolvlm.train.sft import sft

SEED_STEP = 1_000_000  # samples between the first ones of two seeds: no two seeds share a picture
_LAYER = re.compile(r"(model\.(?:text|vision)_model\.(?:encoder\.)?layers\.)(\d+)(\..+)")


@dataclass(frozen=True)
class Settings:
    """samples: pictures of the generator `scene` for each seed. drop_text, drop_vision: the layers taken out, from 0."""

    drop_text: tuple[int, ...] = (1, 3)
    drop_vision: tuple[int, ...] = ()
    tasks: tuple[str, ...] = ("position", "spatial", "presence")
    samples: int = 600
    items: int = ITEMS
    epochs: int = 1
    batch_size: int = 2
    seq_len: int = 512
    lr: float = 5e-4
    answers: float = DistillWeights.answers
    logits: float = DistillWeights.logits
    hidden: float = DistillWeights.hidden
    temperature: float = DistillWeights.temperature
    precision: str = "autocast"


def main() -> None:
    parser = make_parser(__doc__)
    default, weight = Settings(), "the weight of the {} in the distillation's loss ({:g})"
    parser.add_argument(
        "--drop-text", type=seed_list, default=default.drop_text, metavar="1,3", help="layers of the decoder that the student lacks (1,3)"
    )
    parser.add_argument(
        "--drop-vision",
        type=seed_list,
        default=default.drop_vision,
        metavar="2",
        help="layers of the vision tower that it lacks (none); the tower learns only then",
    )
    parser.add_argument("--samples", type=count, help=f"training pictures, for each seed ({default.samples})")
    parser.add_argument("--epochs", type=count, default=default.epochs, help=f"passes over them ({default.epochs})")
    parser.add_argument("--lr", type=float, default=default.lr, help=f"the peak learning rate of both ({default.lr:g})")
    parser.add_argument("--logits", type=float, default=default.logits, help=weight.format("distribution", default.logits))
    parser.add_argument("--hidden", type=float, default=default.hidden, help=weight.format("hidden states", default.hidden))
    run(parser.parse_args())


def run(args: argparse.Namespace) -> None:
    """Everything, seed by seed."""
    settings = Settings(
        args.drop_text,
        args.drop_vision,
        samples=args.samples or (24 if args.quick else Settings.samples),
        items=args.items or (20 if args.quick else ITEMS),
        epochs=args.epochs,
        lr=args.lr,
        logits=args.logits,
        hidden=args.hidden,
    )
    job = Job.from_args("distill-nano", args, settings)
    started, console = time.monotonic(), Console(stderr=True)
    student = job.folder / "student"
    if not (student / "config.json").exists():
        cut(resolve(job.model), student, settings.drop_text, settings.drop_vision)
    sizes = {"teacher": parameters(resolve(job.model)), "student": parameters(student)}
    held_out = HeldOut(settings.tasks, settings.items, job.folder / "answers")
    teacher = held_out.score("teacher", job.model)
    console.print(f"teacher ({sizes['teacher']:,} parameters): {teacher} right of {settings.items}", highlight=False)
    before = held_out.score("before", student)
    console.print(f"student ({sizes['student']:,}), before: {before}", highlight=False)
    taught: list[dict[str, int]] = []
    plain: list[dict[str, int]] = []
    for seed in job.seeds:
        mixture = job.folder / f"data-{seed}" / "mixture.yaml"
        if not mixture.exists():
            write_data(mixture, settings, seed)
        common = shared_options(settings, student, mixture, seed)
        sft(TrainOptions(out=job.folder / f"sft-{seed}", **common))
        plain.append(held_out.score(f"sft-{seed}", job.folder / f"sft-{seed}"))
        console.print(f"seed {seed}: after plain SFT {plain[-1]}", highlight=False)
        distill(
            DistillOptions(
                out=job.folder / f"distill-{seed}",
                teacher=job.model,
                answers=settings.answers,
                logits=settings.logits,
                hidden=settings.hidden,
                temperature=settings.temperature,
                **common,
            )
        )
        taught.append(held_out.score(f"distill-{seed}", job.folder / f"distill-{seed}"))
        console.print(f"seed {seed}: after distillation {taught[-1]}", highlight=False)
    lines = (
        held_out.lines("before", [before])
        + held_out.lines("after SFT", plain)
        + held_out.lines("after distillation", taught)
        + held_out.lines("teacher", [teacher])
    )
    job.report(lines, "before", console, started, parameters=sizes)


def shared_options(settings: Settings, student: Path, mixture: Path, seed: int) -> dict[str, Any]:
    """What both ways of training are told. A whole tower sees as it did and stays frozen: that is a third of the work."""
    rates = {"lr_vision": settings.lr if settings.drop_vision else 0.0, "lr_connector": settings.lr, "lr_text": settings.lr}
    return {
        "model": str(student),
        "mixture": mixture,
        "epochs": settings.epochs,
        "batch_size": settings.batch_size,
        "seq_len": settings.seq_len,
        "precision": settings.precision,
        "prompt_style": "official",
        "seed": seed,
        "warmup_ratio": 0.1,
        "progress_bar": False,
        **rates,
    }


def cut(source: Path, out: Path, drop_text: Sequence[int], drop_vision: Sequence[int]) -> None:
    """Write the checkpoint in `source` without these layers; those that stay are numbered anew. Float32."""
    config, processor_config = load_configs(source)
    dropped = {"text": set(drop_text), "vision": set(drop_vision)}
    for part, layers in (("text", config.text.num_hidden_layers), ("vision", config.vision.num_hidden_layers)):
        if any(number >= layers for number in dropped[part]) or len(dropped[part]) >= layers:
            raise SystemExit(f"--drop-{part} {sorted(dropped[part])}: there are {layers} layers, 0 to {layers - 1}, and one must stay.")
    smaller = replace(
        config,
        text=replace(config.text, num_hidden_layers=config.text.num_hidden_layers - len(dropped["text"])),
        vision=replace(config.vision, num_hidden_layers=config.vision.num_hidden_layers - len(dropped["vision"])),
    )
    with CheckpointReader(source) as reader:
        tensors = {}
        for name in tensor_shapes(config):
            new_name = renumbered(name, dropped["vision" if ".vision_model." in name else "text"])
            if new_name is not None:
                tensors[new_name] = reader.float32(name)
        write_checkpoint(out, tensors, smaller, processor_config, source / "tokenizer.json", ChatTemplate.from_folder(source).source)


def renumbered(name: str, dropped: set[int]) -> str | None:
    """A tensor's name in the model without the layers `dropped`; None for a tensor of one of those."""
    match = _LAYER.fullmatch(name)
    if match is None:
        return name
    layer = int(match[2])
    if layer in dropped:
        return None
    return f"{match[1]}{layer - sum(other < layer for other in dropped)}{match[3]}"


def parameters(folder: Path) -> int:
    """How many numbers a checkpoint holds."""
    return sum(math.prod(shape) for shape in tensor_shapes(load_configs(folder)[0]).values())


def write_data(mixture: Path, settings: Settings, seed: int) -> None:
    """Pictures with the questions of the measured tasks, one conversation a picture; the mixture's file comes last.

    Not `smolvlm synth`, which asks for captions as well: they would give the later answers of a conversation away.
    """
    folder = mixture.parent
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "scene.jsonl").open("w", encoding="utf-8") as table:
        for index in range(seed * SEED_STEP, seed * SEED_STEP + settings.samples):
            sample = generate("scene", "train", index)
            asked = tuple(question for question in sample.questions if question.task in settings.tasks)
            if asked:
                Image.fromarray(sample.frames[0]).save(folder / f"{index}.png")
                record = record_of(replace(sample, questions=asked), str(index), [f"{index}.png"])
                table.write(json.dumps(record, ensure_ascii=False) + "\n")
    mixture.write_text("datasets:\n  - name: scene\n    json_path: scene.jsonl\n    modality: image\n", encoding="utf-8")


if __name__ == "__main__":
    main()
