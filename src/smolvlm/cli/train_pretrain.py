"""`smolvlm train pretrain`: a small model from nothing, on synthetic worlds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.console import note, write


def pretrain(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the run and its model.")],
    recipe: Annotated[
        str, typer.Option(metavar="NAME", help="toy (minutes), cpu (the shipped nano: hours on two cores) or gpu (the wide world).")
    ] = "cpu",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="First weights and noise.")] = 0,
    workers: Annotated[int, typer.Option(metavar="N", min=0, help="Processes that draw pictures ahead.")] = 1,
    precision: Annotated[str, typer.Option(metavar="NAME", help="float32, autocast or bfloat16 (float32 masters).")] = "bfloat16",
) -> None:
    """Train a model of nano's kind from nothing: no checkpoint, no download, no data but what is drawn on the way.

    Three stages: the decoder on the truth instead of pixels, the vision tower on the dense truth of each picture, then
    both together. A run that was stopped goes on when the same command is given again; the model that it ends with is
    an official-format checkpoint in DIR/model.

    \b
    Examples:
      smolvlm train pretrain --recipe toy --out runs/toy
      smolvlm train pretrain --recipe cpu --out runs/nano
      smolvlm eval synth --model runs/nano/model
    """
    from smolvlm.train.nano.pretrain import PretrainOptions
    from smolvlm.train.nano.pretrain import pretrain as run
    from smolvlm.train.nano.recipe import recipe as named

    options = PretrainOptions(named(recipe), out, seed=seed, workers=workers, precision=precision)
    note(f"recipe {recipe}: {options.recipe.about}")
    folder = run(options, on_stage=lambda name: note(f"stage: {name}"))
    write(f"{folder}\n")
