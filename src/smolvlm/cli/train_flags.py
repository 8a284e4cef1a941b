"""Options that the training commands share, from the declarations of `TrainOptions`; what is left out is left to it."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvlm.cli.console import note
from smolvlm.cli.flags import OptionFlags
from smolvlm.options.declare import Option, declared
from smolvlm.options.training import LoopOptions, TrainOptions

if TYPE_CHECKING:
    from smolvlm.train.loop import TrainResult


class LoopFlags(OptionFlags):
    """How long, how fast, in which precision, and what is kept."""

    KIND = LoopOptions


class DataFlags(OptionFlags):
    """How records become rows: the rest of `TrainOptions`."""

    KIND = TrainOptions

    @classmethod
    def declared(cls) -> dict[str, Option]:
        return {name: made for name, made in super().declared().items() if name not in declared(LoopOptions)}


def given(*flags: Any) -> dict[str, Any]:
    """What the user set, by the name of the option in the library."""
    typed: dict[str, Any] = {}
    for group in flags:
        values = group.given if isinstance(group, OptionFlags) else vars(group)
        typed |= {name: value for name, value in values.items() if value is not None}
    return typed


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
