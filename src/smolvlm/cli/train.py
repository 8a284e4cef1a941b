"""`smolvlm train`: the stages of training, one command each. A stage's command lives in a file of its own."""

from __future__ import annotations

import typer

from smolvlm.cli.help import Command
from smolvlm.cli.train_distill import DistillCommand, distill
from smolvlm.cli.train_dpo import DPOCommand, dpo
from smolvlm.cli.train_pretrain import pretrain
from smolvlm.cli.train_sft import SFTCommand, sft

train_app = typer.Typer(name="train", rich_markup_mode=None, no_args_is_help=True)


@train_app.callback()
def _train() -> None:
    """Train a checkpoint, stage by stage. To fit one to your own pictures, `smolvlm finetune` is the short way.

    \b
    Examples:
      smolvlm train pretrain --recipe toy --out runs/toy
      smolvlm train sft --model 256m --mixture mix.yaml --out runs/mine
      smolvlm train dpo --model 256m --pairs pairs.jsonl --out runs/dpo
      smolvlm train distill --model 256m --teacher 500m --mixture mix.yaml --out runs/kd
    """


train_app.command("pretrain", cls=Command)(pretrain)
train_app.command("sft", cls=SFTCommand)(sft)
train_app.command("dpo", cls=DPOCommand)(dpo)
train_app.command("distill", cls=DistillCommand)(distill)
