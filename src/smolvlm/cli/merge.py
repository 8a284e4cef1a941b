"""`smolvlm merge`: an adapter and its base as one checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.console import Bars, note, write


def merge(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="The model that the adapter was trained on.")],
    adapter: Annotated[Path, typer.Argument(metavar="ADAPTER", help="The adapter's folder.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    dtype: Annotated[str | None, typer.Option(metavar="NAME", help="float32, bfloat16 or float16; without it: as MODEL is.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint that is already there.")] = False,
) -> None:
    """Add an adapter into its model's weights.

    The result is an ordinary checkpoint: transformers and every engine load it, and it costs nothing extra to run.
    To use an adapter without merging: `smolvlm ask --model MODEL --adapter ADAPTER ...`.

    \b
    Examples:
      smolvlm merge nano runs/parts/adapter ./nano-parts
      smolvlm merge 256m ./my-adapter ./merged --dtype bfloat16
    """
    from smolvlm.train.merge import merge as merge_folders

    with Bars() as bars:
        folder = merge_folders(
            model, adapter, out, dtype=dtype, overwrite=overwrite, on_tensor=lambda done, total: bars("weights", done, total)
        )
    note(f"merged {adapter} into {model}", dim=True)
    write(f"{folder}\n")
