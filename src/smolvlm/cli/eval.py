"""`smolvlm eval`: how often a model is right, on the built-in benchmark and on the hand-made set."""

from __future__ import annotations

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smolvlm.cli.console import Bars, note, write, write_json
from smolvlm.cli.flags import ModelFlags, with_flags
from smolvlm.cli.help import Command
from smolvlm.cli.loading import FALLBACK, announce, find_model, open_model
from smolvlm.evals.defaults import BATCH_SIZE, ITEMS

if TYPE_CHECKING:
    from smolvlm.evals.report import Report
    from smolvlm.evals.suite import Suite

app = typer.Typer(rich_markup_mode=None, no_args_is_help=True)


@dataclass(frozen=True)
class EvaluatedFlags(ModelFlags):
    """The same options, but what is measured by default is the built-in model, whatever else is on the machine."""

    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            "-m",
            metavar="MODEL",
            help="A checkpoint's folder, a Hub id, or 256m, 500m, 2.2b or nano; without it nano, or the model that an adapter belongs to.",
        ),
    ] = None

    def chosen(self) -> ModelFlags:
        default = None if self.adapter is not None else FALLBACK
        return dataclasses.replace(self, model=self.model or default)


@dataclass(frozen=True)
class RunFlags:
    """What is asked, and what becomes of the answers."""

    task: Annotated[list[str] | None, typer.Option(metavar="NAME", help="This task only; may be given again. `--list` names them.")] = None
    items: Annotated[int, typer.Option(metavar="N", min=1, help="At most so many questions a task.")] = ITEMS
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Keep items.jsonl (every answer), report.json and report.png there; the same command goes on where a run ended.",
        ),
    ] = None
    batch_size: Annotated[int, typer.Option(metavar="N", min=1, help="Questions answered together.")] = BATCH_SIZE
    detail: Annotated[
        str | None,
        typer.Option(
            metavar="LEVEL", help="official, fit or low, as for `smolvlm ask`; fit is much faster for a model that splits pictures."
        ),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Print the report as one JSON object.")] = False
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the table as Markdown.")] = False
    list_tasks: Annotated[bool, typer.Option("--list", help="Say which tasks there are, and leave.")] = False


@app.callback()
def _eval() -> None:
    """Measure how often a model is right.

    \b
    Examples:
      smolvlm eval synth
      smolvlm eval handmade --model ./my-checkpoint
    """


@app.command("synth", cls=Command)
@with_flags
def synth(
    model: EvaluatedFlags,
    run: RunFlags,
    world: Annotated[str, typer.Option(metavar="NAME", help="small (30 objects) or wide (over 100).")] = "small",
) -> None:
    """Run the built-in benchmark: held-out synthetic pictures and clips.

    Prints accuracy by task with 95 % intervals, beside what one constant answer would score.

    \b
    Examples:
      smolvlm eval synth
      smolvlm eval synth --task colour --task count --items 50
      smolvlm eval synth --model ./my-checkpoint --world wide --out results
      smolvlm eval synth --markdown > table.md
    """
    from smolvlm.evals.synth_suite import synth_suite
    from smolvlm.synth.world import WORLDS

    if world not in WORLDS:
        raise typer.BadParameter(f"--world {world!r} is not one of {', '.join(WORLDS)}.")
    _evaluate(synth_suite(WORLDS[world]), model, run)


@app.command("handmade", cls=Command)
@with_flags
def handmade(model: EvaluatedFlags, run: RunFlags) -> None:
    """Run the hand-made set: 60 pictures and 8 clips that other code drew.

    A model that is right on the benchmark but not here has learned how the benchmark is drawn.

    \b
    Examples:
      smolvlm eval handmade
      smolvlm eval handmade --model 256m --detail fit --json
    """
    from smolvlm.evals.handmade import handmade_suite

    _evaluate(handmade_suite(), model, run)


def _evaluate(suite: Suite, model_flags: EvaluatedFlags, run: RunFlags) -> None:
    if run.json and run.markdown:
        raise typer.BadParameter("--json and --markdown exclude each other.")
    if run.list_tasks:
        from smolvlm.cli.console import write_table

        write_table([(task.name, task.description) for task in suite.tasks.values()])
        return
    from smolvlm.checkpoint.identity import fingerprint_of
    from smolvlm.evals.runner import evaluate

    for name in run.task or ():
        suite.task(name)  # a misspelt one shows before weights are loaded
    flags = model_flags.chosen()
    options: dict[str, Any] = {} if run.detail is None else {"detail": run.detail}
    with Bars() as bars:
        name, folder = find_model(flags, bars)
        model = open_model(name, flags, bars)
        model.processor.knows_drawn_only = False  # what it is asked is chosen here, and the report says how it went
        announce(model, folder)
        report = evaluate(
            model,
            suite,
            tasks=run.task or (),
            items=run.items,
            out=run.out,
            options=options,
            fingerprint=fingerprint_of(folder, flags.adapter),
            batch_size=run.batch_size,
            on_progress=bars,
        )
    _show(report, run)
    if run.out is not None:
        _keep(report, run.out)


def _show(report: Report, run: RunFlags) -> None:
    from smolvlm.evals.report import markdown, plain_table, rich_table

    if run.json:
        write_json(report.to_dict())
    elif run.markdown:
        write(markdown(report))
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(report))
    else:
        write(plain_table(report))


def _keep(report: Report, folder: Path) -> None:
    """The report's files. Without matplotlib the picture is left out, which is said: the answers took long to get."""
    from smolvlm.errors import MissingExtraError
    from smolvlm.evals.chart import save_chart

    paths = [report.save(folder)]
    try:
        paths.append(save_chart(report, folder))
    except MissingExtraError as error:
        note(str(error))
    note(f"wrote {' and '.join(map(str, paths))}")
