"""`smolvlm train dpo`: preference pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from smolvlm.cli.console import note
from smolvlm.cli.flags import with_flags
from smolvlm.cli.help import Command
from smolvlm.cli.train_flags import DataFlags, LoopFlags, given, option_defaults, tell
from smolvlm.cli.train_method import MethodFlags, tell_result
from smolvlm.errors import MissingExtraError


class DPOCommand(Command):
    """Shows the defaults of `DPOOptions` on the help page, but for rates: those depend on the method."""

    def more_defaults(self) -> dict[str, Any]:
        try:
            from smolvlm.train.dpo import DPOOptions
        except MissingExtraError:
            return {}
        return {k: v for k, v in option_defaults(DPOOptions).items() if not k.startswith("lr_")}


@with_flags
def dpo(
    pairs: Annotated[Path, typer.Option("--pairs", metavar="FILE", help="The JSONL with a preference pair a line.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the run and its outcome.")],
    method: MethodFlags,
    rows: DataFlags,
    loop: LoopFlags,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A checkpoint's folder, a Hub id, or 256m, 500m, 2.2b.")
    ] = "256m",
    beta: Annotated[float | None, typer.Option(metavar="X", help="How dearly distance from the starting model is paid.")] = None,
    label_smoothing: Annotated[float | None, typer.Option(metavar="X", help="The share of pairs that may be the wrong way round.")] = None,
) -> None:
    """Train a model to prefer one answer to another (DPO, the sigmoid loss).

    The model as it was is the reference: without its adapter, or with --method full a frozen copy. The log has the
    rewards, their margin, and how often the preferred answer wins.

    \b
    Examples:
      smolvlm train dpo --model 256m --pairs pairs.jsonl --out runs/dpo
      smolvlm train dpo --model ./mine --pairs pairs.jsonl --out runs/dpo --beta 0.3 --method full

    \b
    pairs.jsonl:
      {"image": "1.jpg", "prompt": "What is this?", "chosen": "A dented can.", "rejected": "A dog."}
    """
    from smolvlm.train.dpo import DPOOptions
    from smolvlm.train.dpo import dpo as run

    asked = {**given(method, rows, loop), "beta": beta, "label_smoothing": label_smoothing}
    options = DPOOptions.for_method(asked.pop("method", DPOOptions.method), model=model, mixture=pairs, out=out, **asked)
    result = run(options)
    tell(result, out)
    if "rewards/margin" in result.metrics:
        note(
            f"at the end: reward margin {result.metrics['rewards/margin']:.3f}, the preferred answer wins in "
            f"{result.metrics['rewards/accuracy']:.0%} of the last pairs"
        )
    tell_result(options)
