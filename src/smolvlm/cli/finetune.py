"""`smolvlm finetune`: a user's own files to an adapter or a checkpoint."""

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


class FinetuneCommand(Command):
    """Shows the defaults of `FinetuneOptions` on the help page, but for rates: those depend on the method."""

    def more_defaults(self) -> dict[str, Any]:
        try:
            from smolvlm.train.finetune import FinetuneOptions
        except MissingExtraError:
            return {}
        return {k: v for k, v in option_defaults(FinetuneOptions).items() if not k.startswith("lr_")} | {"epochs": 5}


@with_flags
def finetune(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A checkpoint's folder, a Hub id, nano, 256m, ...")],
    data: Annotated[Path, typer.Argument(metavar="DATA", help="Your examples: a file or a folder, see below.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="The folder of the run and its outcome.")],
    method: MethodFlags,
    rows: DataFlags,
    loop: LoopFlags,
    question: Annotated[str | None, typer.Option(metavar="TEXT", help="What to ask about examples that bring no question.")] = None,
    validation_share: Annotated[
        float | None, typer.Option(metavar="X", help="Share of the examples set apart to measure accuracy; 0: none.")
    ] = None,
    no_measure: Annotated[bool, typer.Option("--no-measure", help="Do not ask the model before and after.")] = False,
) -> None:
    """Teach a model your own pictures or videos.

    Says what it understood of DATA, sets a part aside, asks the model about it before and after, and writes an adapter
    (lora, dora, qlora) or a whole checkpoint (full). A run that was stopped goes on when the command is given again.

    \b
    DATA is one of:
      a .jsonl, .json or .csv file, one example a line:
          {"image": "1.jpg", "question": "Is it broken?", "answer": "no"}
          also: "images": [...], "video": ..., LLaVA's "conversations", the web APIs' "messages"
      a folder with a folder for each class:    parts/good/*.jpg, parts/dented/*.jpg
      a folder of pictures with texts:          1.jpg and 1.txt, 2.jpg and 2.txt
      a folder with metadata.csv or metadata.jsonl (file_name, question, answer)
      a folder with train/ and validation/ in one of these forms

    \b
    Examples:
      smolvlm finetune nano ./parts --out runs/parts
      smolvlm finetune 256m receipts.jsonl --out runs/receipts --method qlora --epochs 3 --detail low
      smolvlm finetune nano ./parts --out runs/full --method full --lr-text 1e-4 --question "What is wrong with the part?"
    """
    from smolvlm.train.finetune import FinetuneOptions
    from smolvlm.train.finetune import finetune as run

    asked = {**given(method, rows, loop), "question": question, "validation_share": validation_share}
    options = FinetuneOptions.for_method(
        asked.pop("method", FinetuneOptions.method), model=model, mixture=data, out=out, measure=not no_measure, **asked
    )
    result = run(options, on_note=note)
    tell(result.train, out)
    tell_result(options)
