"""Options that the training commands share. Defaults are those of `TrainOptions`; what is left out is left to it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smolvlm.cli.console import note

if TYPE_CHECKING:
    from smolvlm.train.loop import TrainResult


@dataclass(frozen=True)
class LoopFlags:
    """How long, how fast, in which precision, and what is kept: `LoopOptions`."""

    steps: Annotated[int | None, typer.Option(metavar="N", help="Optimizer steps.")] = None
    gradient_accumulation: Annotated[
        int | None, typer.Option(metavar="N", help="Batches a step, where memory has no room for one large batch.")
    ] = None
    lr_vision: Annotated[float | None, typer.Option(metavar="X", help="Peak rate of the vision tower; 0: frozen.")] = None
    lr_connector: Annotated[float | None, typer.Option(metavar="X", help="Peak rate of the connector; 0: frozen.")] = None
    lr_text: Annotated[float | None, typer.Option(metavar="X", help="Peak rate of the decoder; 0: frozen.")] = None
    schedule: Annotated[str | None, typer.Option(metavar="NAME", help="cosine or constant, after the warm-up.")] = None
    warmup_ratio: Annotated[float | None, typer.Option(metavar="X", help="Share of the run with a rising rate.")] = None
    weight_decay: Annotated[float | None, typer.Option(metavar="X", help="Pull on matrices towards zero.")] = None
    max_grad_norm: Annotated[float | None, typer.Option(metavar="X", help="Clip gradients beyond it; 0: never.")] = None
    precision: Annotated[
        str | None, typer.Option(metavar="NAME", help="float32, autocast (bfloat16 products) or bfloat16 (and float32 masters).")
    ] = None
    gradient_checkpointing: Annotated[bool, typer.Option("--gradient-checkpointing", help="Less memory, about a third more time.")] = False
    neftune_alpha: Annotated[float | None, typer.Option(metavar="X", help="Noise on the embeddings (NEFTune; 5 is usual); 0: none.")] = None
    seed: Annotated[int | None, typer.Option(metavar="N", help="Order of the data, and noise.")] = None
    save_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between two saves.")] = None
    keep: Annotated[int | None, typer.Option(metavar="N", help="Saves that are kept.")] = None
    log_every: Annotated[int | None, typer.Option(metavar="N", help="Steps between two lines of log.jsonl.")] = None
    fsdp: Annotated[bool, typer.Option("--fsdp", help="Under torchrun: shard the weights over the processes.")] = False


@dataclass(frozen=True)
class DataFlags:
    """How records become rows: the rest of `TrainOptions`."""

    epochs: Annotated[int | None, typer.Option(metavar="N", help="Passes over the data; without --steps: 1.")] = None
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Rows of a batch, on each process.")] = None
    seq_len: Annotated[int | None, typer.Option(metavar="N", help="Tokens of a row; without it: the model's context.")] = None
    packing: Annotated[bool | None, typer.Option("--packing/--no-packing", help="Several conversations share a row, or one has it.")] = None
    prompt_style: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="training (the authors' intro and outro of media) or official (as transformers and `smolvlm ask` prompt)."
        ),
    ] = None
    detail: Annotated[str | None, typer.Option(metavar="LEVEL", help="official (pictures are split), fit or low (one tile each).")] = None
    fps: Annotated[float | None, typer.Option(metavar="X", help="Frames sampled a second of video.")] = None
    max_frames: Annotated[int | None, typer.Option(metavar="N", help="At most this many frames of a video.")] = None
    workers: Annotated[int | None, typer.Option(metavar="N", help="Threads that read media ahead.")] = None


def given(*flags: Any) -> dict[str, Any]:
    """What the user set, by the name of the option in the library."""
    return {f.name: value for group in flags for f in fields(group) if (value := getattr(group, f.name)) is not None}


def option_defaults(kind: type) -> dict[str, Any]:
    """The defaults of an options dataclass, for a help page."""
    return {f.name: f.default for f in fields(kind)}


def tell(result: TrainResult, out: Path) -> None:
    """The end of a run on stderr: where it stands, how the loss went, and what the data source reports."""
    if result.losses:
        first, last = result.losses[0], result.losses[-1]
        note(f"{result.steps} steps; loss {first[1]:.4f} -> {last[1]:.4f}; curve: {out / 'loss.png'}")
    for line in result.notes:
        note(line)
