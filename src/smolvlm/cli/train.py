"""`smolvlm train`: the stages of training, one command each. A stage's command lives in a file of its own."""

from __future__ import annotations

import typer

from smolvlm.cli.help import Command
from smolvlm.cli.train_distill import DistillCommand, distill
from smolvlm.cli.train_dpo import DPOCommand, dpo
from smolvlm.cli.train_pretrain import pretrain
from smolvlm.cli.train_sft import SFTCommand, sft

train_app = typer.Typer(
    name="train",
    rich_markup_mode=None,
    no_args_is_help=True,
    help="Train a checkpoint, stage by stage.",
)
train_app.command("pretrain", cls=Command)(pretrain)
train_app.command("sft", cls=SFTCommand)(sft)
train_app.command("dpo", cls=DPOCommand)(dpo)
train_app.command("distill", cls=DistillCommand)(distill)
