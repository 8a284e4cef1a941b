"""`smolvlm train sft`: supervised fine-tuning on a mixture of datasets."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from smolvlm.cli.console import write
from smolvlm.cli.flags import with_flags
from smolvlm.cli.help import Command
from smolvlm.cli.train_flags import DataFlags, LoopFlags, given, option_defaults, tell
from smolvlm.errors import MissingExtraError


class SFTCommand(Command):
    """Shows the defaults of `TrainOptions` on the help page."""

    def more_defaults(self) -> dict[str, Any]:
        try:
            from smolvlm.options.training import TrainOptions
        except MissingExtraError:
            return {}
        return option_defaults(TrainOptions)


@with_flags
def sft(
    mixture: Annotated[Path, typer.Option("--mixture", metavar="FILE", help="The YAML file that names the datasets.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the run and its model.")],
    data: DataFlags,
    loop: LoopFlags,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="A checkpoint's folder, a Hub id, or 256m, 500m, 2.2b.")
    ] = "256m",
) -> None:
    """Train a checkpoint on a mixture of conversations about pictures and videos.

    Only the answers are learned. The mixture is a YAML file in the published schema over LLaVA-style JSON or JSONL.
    A run that was stopped goes on when the same command is given again; the model that it ends with is an
    official-format checkpoint in DIR, beside log.jsonl, loss.png and the last saves.

    \b
    Examples:
      smolvlm train sft --model 256m --mixture mix.yaml --out runs/mine
      smolvlm train sft --model 256m --mixture mix.yaml --out runs/head --lr-vision 0 --precision autocast
      smolvlm train sft --mixture mix.yaml --out runs/try --steps 200 --batch-size 2 --detail low
      torchrun --nproc-per-node 8 -m smolvlm train sft --mixture mix.yaml --out runs/big --gradient-accumulation 4

    \b
    mix.yaml:
      datasets:
        - name: parts
          json_path: parts.jsonl      # {"image": "1.jpg", "conversations": [{"from": "human",
          path: pictures              #  "value": "<image>Is it broken?"}, {"from": "gpt", "value": "No."}]}
          modality: image             # text, image, multi-image or video
          sampling_strategy: all      # or first:10%, random:10%, first:500, random:500
    """
    from smolvlm.options.training import TrainOptions
    from smolvlm.train.sft import sft as train_sft

    options = TrainOptions(model=model, mixture=mixture, out=out, **given(data, loop))
    result = train_sft(options)
    tell(result, out)
    write(f"{out}\n")
