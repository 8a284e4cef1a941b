"""The options of commands that train whole weights or an adapter: `TuneOptions`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from smolvlm.cli.console import note, write

if TYPE_CHECKING:
    from smolvlm.train.tuning import TuneOptions


@dataclass(frozen=True)
class MethodFlags:
    """Which weights are trained."""

    method: Annotated[
        str | None, typer.Option(metavar="NAME", help="full (all weights), lora, dora, or qlora (LoRA over a 4-bit model, least memory).")
    ] = None
    rank: Annotated[int | None, typer.Option(metavar="N", help="Size of the adapter.")] = None
    alpha: Annotated[float | None, typer.Option(metavar="X", help="Strength of the adapter; twice the rank is usual.")] = None
    dropout: Annotated[float | None, typer.Option(metavar="X", help="Dropout before the adapter.")] = None
    adapt_vision: Annotated[bool, typer.Option("--adapt-vision", help="Put adapters into the vision encoder too.")] = False


def tell_result(options: TuneOptions) -> None:
    """Where the outcome stands, and how it is used."""
    from smolvlm.train.tuning import result_folder

    folder = result_folder(options)
    if options.method == "full":
        note(f"use it: smolvlm ask PHOTO QUESTION --model {folder}")
    else:
        note(
            f"use it: smolvlm ask PHOTO QUESTION --model {options.model} --adapter {folder}; as one model: smolvlm merge "
            f"{options.model} {folder} OUT"
        )
    write(f"{folder}\n")
