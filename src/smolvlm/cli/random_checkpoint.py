"""`smolvlm random-checkpoint`: a checkpoint of official format that knows nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.console import note, write


def random_checkpoint(
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    size: Annotated[str, typer.Option(metavar="SIZE", help="tiny, nano, 256m, 500m or 2.2b.")] = "256m",
    dtype: Annotated[str, typer.Option(metavar="NAME", help="float32, bfloat16 or float16.")] = "float32",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="The same seed gives the same weights.")] = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint that is already there.")] = False,
) -> None:
    """Write a checkpoint with random weights.

    It has the official format, for tests and benchmarks, and knows nothing.

    \b
    Examples:
      smolvlm random-checkpoint /tmp/random-256m
      smolvlm random-checkpoint ./tiny --size tiny && smolvlm ask sign.png "What does the sign say?" --model ./tiny
    """
    from smolvlm.checkpoint import write_random_checkpoint

    folder = write_random_checkpoint(out, size, dtype, seed, overwrite=overwrite)
    note("the weights are random: this model knows nothing, and its answers mean nothing.")
    write(f"{folder}\n")
