"""`smolvlm quantize`: a checkpoint for the native engine that loads in an instant."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smolvlm.cli.console import Bars, human_size, note, write

_FORMATS = "bf16, q8 or q4"


def quantize(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint's folder, a Hub id or a short name.")],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="The folder to make.")],
    dtype: Annotated[str, typer.Option(metavar="NAME", help="q8, q4 or bfloat16.")] = "q8",
    vision: Annotated[
        str | None, typer.Option(metavar="NAME", help=f"The encoder instead: {_FORMATS}. Without it: what is faster here.")
    ] = None,
    text: Annotated[str | None, typer.Option(metavar="NAME", help=f"The decoder's layers instead: {_FORMATS}.")] = None,
    head: Annotated[str | None, typer.Option(metavar="NAME", help=f"The output layer instead: {_FORMATS}.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a checkpoint that is already there.")] = False,
) -> None:
    """Quantize a checkpoint once, for the native engine.

    The result is smaller, loads by memory map and shares its memory between processes. Only the native engine reads it.

    \b
    Examples:
      smolvlm quantize 256m ./256m-q8
      smolvlm quantize 500m ./500m-q4 --dtype q4 --vision q8
      smolvlm ask -m ./256m-q8 sign.png "What does the sign say?"
    """
    from smolvlm import hub
    from smolvlm.engines.native_engine import Formats
    from smolvlm.engines.native_quantize import quantize

    wanted = Formats.asked(dtype)
    for part, name in (("vision", vision), ("text", text), ("head", head)):
        if name is not None:
            wanted |= Formats.asked(f"{part}={name}")
    with Bars() as bars:
        folder = hub.resolve(model, on_progress=bars.download)
        formats = quantize(
            folder,
            out,
            dtype=",".join(f"{part}={name}" for part, name in wanted.items()) or "auto",
            overwrite=overwrite,
            on_tensor=lambda done, total: bars("weights", done, total),
        )
    size = sum(path.stat().st_size for path in out.expanduser().iterdir())
    note(f"vision {formats.vision}, text {formats.text}, head {formats.head}: {human_size(size)}", dim=True)
    write(f"{out}\n")
