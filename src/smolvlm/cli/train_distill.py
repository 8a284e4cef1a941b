"""`smolvlm train distill`: learning from a larger model."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from smolvlm.cli.flags import with_flags
from smolvlm.cli.help import Command
from smolvlm.cli.train_flags import DataFlags, LoopFlags, given, option_defaults, tell
from smolvlm.cli.train_method import MethodFlags, tell_result
from smolvlm.errors import MissingExtraError


class DistillCommand(Command):
    """Shows the defaults of `DistillOptions` on the help page, but for rates: those depend on the method."""

    def more_defaults(self) -> dict[str, Any]:
        try:
            from smolvlm.train.distill import DistillOptions
        except MissingExtraError:
            return {}
        return {k: v for k, v in option_defaults(DistillOptions).items() if not k.startswith("lr_")}


@with_flags
def distill(
    mixture: Annotated[Path, typer.Option("--mixture", metavar="FILE", help="The YAML file that names the datasets.")],
    teacher: Annotated[str, typer.Option("--teacher", metavar="MODEL", help="A checkpoint, or the model's name at --endpoint.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the run and its outcome.")],
    method: MethodFlags,
    rows: DataFlags,
    loop: LoopFlags,
    model: Annotated[
        str, typer.Option("--model", "-m", metavar="MODEL", help="The student: a folder, a Hub id, or 256m, 500m, 2.2b.")
    ] = "256m",
    endpoint: Annotated[
        str | None, typer.Option(metavar="URL", help="Ask an OpenAI-compatible server for the answers, e.g. http://HOST:8000/v1.")
    ] = None,
    key_variable: Annotated[
        str | None, typer.Option(metavar="NAME", help="The environment variable with the key, where the server wants one.")
    ] = None,
    max_answer_tokens: Annotated[int | None, typer.Option(metavar="N", help="The longest answer of an endpoint.")] = None,
    answers: Annotated[float | None, typer.Option(metavar="X", help="Weight of the data's own answers.")] = None,
    logits: Annotated[float | None, typer.Option(metavar="X", help="Weight of the teacher's distribution.")] = None,
    hidden: Annotated[float | None, typer.Option(metavar="X", help="Weight of the teacher's hidden states.")] = None,
    temperature: Annotated[float | None, typer.Option(metavar="X", help="Softens both distributions.")] = None,
) -> None:
    """Train a model to answer as a larger one does.

    A teacher checkpoint with the same vocabulary teaches its whole distribution over the next token, and with --hidden
    its hidden states. Any other teacher answers the mixture's questions over HTTP; its answers are kept in DIR, so that
    a stopped run asks only what is missing.

    \b
    Examples:
      smolvlm train distill --model 256m --teacher 500m --mixture mix.yaml --out runs/kd
      smolvlm train distill --model 256m --teacher 500m --mixture mix.yaml --out runs/kd2 --hidden 0.5 --temperature 3
      smolvlm train distill --model nano --teacher big-vlm --endpoint http://127.0.0.1:8000/v1 --mixture mix.yaml --out runs/seq
    """
    from smolvlm.train.distill import DistillOptions
    from smolvlm.train.distill import distill as run

    asked = {
        **given(method, rows, loop),
        "endpoint": endpoint,
        "max_answer_tokens": max_answer_tokens,
        "answers": answers,
        "logits": logits,
        "hidden": hidden,
        "temperature": temperature,
    }
    options = DistillOptions.for_method(
        asked.pop("method", DistillOptions.method), model=model, mixture=mixture, teacher=teacher, out=out, **asked
    )
    result = run(options, api_key=None if key_variable is None else os.environ.get(key_variable))
    tell(result, out)
    tell_result(options)
