"""`smolvlm batch`: the same questions about any number of pictures and videos, into one Parquet file."""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smolvlm.cli.console import Bars, note
from smolvlm.cli.flags import GenerationFlags, MediaFlags, ModelFlags, SystemOption, with_flags
from smolvlm.cli.help import Command
from smolvlm.cli.loading import announce, find_model, has_random_weights, open_model, say_world

if TYPE_CHECKING:
    from smolvlm.scale.batch import BatchResult

_SAY_EVERY_S = 30.0


class BatchCommand(Command):
    """Shows the defaults of `BatchSettings`."""

    def more_defaults(self) -> dict[str, Any]:
        from smolvlm.scale import settings

        return {"part_inputs": settings.PART_INPUTS, "batch_size": settings.BATCH_SIZE}


@dataclass(frozen=True)
class AskedFlags:
    """What is asked of every input."""

    question: Annotated[
        list[str] | None, typer.Option("--question", "-q", metavar="TEXT", help="Ask this about every input; may be given again.")
    ] = None
    describe: Annotated[bool, typer.Option("--describe", help="Ask for a description.")] = False
    schema: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A JSON schema: every answer is a document of it, as with `extract`.")
    ] = None
    column: Annotated[str | None, typer.Option(metavar="NAME", help="The column of Parquet inputs that holds the media.")] = None
    remote_hosts: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST",
            help="Fetch http(s) inputs from this host: example.org, *.example.org or *. May be given again; without it none is fetched.",
        ),
    ] = None

    allow_paths: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Lists and Parquet files may name media in this folder too, beside their own. May be given again."
        ),
    ] = None

    def questions(self) -> tuple[str, ...]:
        """Raises typer.BadParameter when nothing is asked."""
        from smolvlm.session import EXTRACT_PROMPT
        from smolvlm.vlm import DESCRIBE_PROMPT

        asked = [*(self.question or ()), *([DESCRIBE_PROMPT] if self.describe else ())]
        if not asked and self.schema is not None:
            asked = [EXTRACT_PROMPT]
        if not asked:
            raise typer.BadParameter("nothing is asked: pass --question TEXT, --describe or --schema FILE.")
        return tuple(asked)

    def schema_text(self) -> str | None:
        """Raises SchemaError for a file that holds no schema that can be followed."""
        if self.schema is None:
            return None
        from smolvlm.errors import SchemaError
        from smolvlm.generation import normalize_schema

        try:
            text = self.schema.read_text(encoding="utf-8")
            normalize_schema(text)
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "it is not UTF-8"
            raise SchemaError(f"{self.schema}: cannot be read ({reason}); pass a file that holds a JSON schema.") from None
        except SchemaError as error:
            raise SchemaError(f"{self.schema}: {error}") from None
        return text


@dataclass(frozen=True)
class RunFlags:
    """Where the rows go, and who does the work."""

    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="The Parquet file to write; FILE.parts beside it holds what is done until then, and the same command goes on from there.",
        ),
    ]
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace FILE if it exists, at the end.")] = False
    batch_size: Annotated[int | None, typer.Option(metavar="N", help="Answers decoded together.")] = None
    part_inputs: Annotated[int | None, typer.Option(metavar="N", help="Inputs a part: what a killed worker does again.")] = None
    workers: Annotated[int | None, typer.Option(metavar="N", help="So many processes with a model each, on Ray.")] = None
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="A running Ray cluster (auto, or host:6379). All its machines "
            "must see the inputs, FILE and the model under the same paths.",
        ),
    ] = None
    worker_cpus: Annotated[int | None, typer.Option(metavar="N", help="Processors, and threads, of each worker.")] = None
    worker_gpus: Annotated[float, typer.Option(metavar="X", help="GPUs of each worker; 0.5 puts two on one.")] = 0.0


@with_flags
def batch(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUT...",
            help="Folders, lists of paths (.txt), Parquet files, WebDataset shards (.tar), pictures and videos, or URLs.",
        ),
    ],
    asked: AskedFlags,
    run: RunFlags,
    model: ModelFlags,
    media: MediaFlags,
    generation: GenerationFlags,
    system: SystemOption = None,
) -> None:
    """Ask the same of many pictures and videos.

    The answers go to a Parquet file.

    One row an input and question: id, source, question, answer, finish_reason, prompt_tokens, completion_tokens,
    seconds, error, model, warnings. An input that cannot be read is a row with an error, and the run goes on. Stopped or killed,
    the same command continues where it was.

    \b
    Examples:
      smolvlm batch holiday/ --describe --out captions.parquet
      smolvlm batch list.txt clips/ -q "What happens?" -q "Describe this video." --out answers.parquet
      smolvlm batch shards/*.tar --schema receipt.schema.json --out receipts.parquet --workers 4
      smolvlm batch data.parquet --column image_url --remote-hosts upload.wikimedia.org -q "Describe this picture." --out out.parquet
      smolvlm batch /mnt/clips --describe --out /mnt/captions.parquet --ray auto --worker-gpus 0.5
    """
    from smolvlm.checkpoint.identity import fingerprint_of
    from smolvlm.scale.batch import check_out, run_batch
    from smolvlm.scale.pool import PoolOptions
    from smolvlm.scale.settings import BATCH_SIZE, PART_INPUTS, BatchSettings, ModelSpec

    options = {f: v for f, v in (vars(media.options()) | vars(generation.params())).items() if v is not None}
    questions, schema = asked.questions(), asked.schema_text()
    spread = run.workers is not None or run.ray is not None
    if not spread and (run.worker_cpus is not None or run.worker_gpus):
        raise typer.BadParameter("--worker-cpus and --worker-gpus are for workers on Ray: add --workers N or --ray ADDRESS.")
    pool = PoolOptions(run.ray, run.workers, run.worker_cpus, run.worker_gpus) if spread else None
    check_out(run.out.expanduser().absolute(), run.overwrite)
    with Bars() as bars:
        name, folder = find_model(model, bars)
    say_world(folder, model)
    adapter = None if model.adapter is None else _absolute(model.adapter)
    spec = ModelSpec(
        _same_everywhere(name), fingerprint_of(folder, model.adapter), adapter, model.engine, model.device, model.dtype, model.prompt_style
    )
    settings = BatchSettings(
        model=spec,
        questions=questions,
        inputs=tuple(map(_absolute, inputs)),
        system=system,
        schema=schema,
        column=asked.column,
        options=options,
        remote_hosts=tuple(asked.remote_hosts or ()),
        allow_paths=tuple(_absolute(str(folder)) for folder in asked.allow_paths or ()),
        part_inputs=PART_INPUTS if run.part_inputs is None else run.part_inputs,
        batch_size=BATCH_SIZE if run.batch_size is None else run.batch_size,
    )
    with Bars() as bars:
        progress = _Progress(bars)

        def load() -> Any:
            loaded = open_model(name, model, bars)
            announce(loaded, folder)
            return loaded

        if pool is not None and has_random_weights(folder):
            note("this checkpoint has random weights: it knows nothing, and its answers mean nothing.")
        try:
            result = run_batch(settings, run.out, overwrite=run.overwrite, pool=pool, load=load, on_progress=progress)
        except KeyboardInterrupt:
            progress.say("stopped; the same command goes on from here")
            raise
    _say_end(result, run.out, progress.elapsed_s)


class _Progress:
    """A bar on a terminal; in a log file, a line now and then."""

    def __init__(self, bars: Bars) -> None:
        self._bars, self._started, self._said = bars, time.monotonic(), time.monotonic()
        self._done = self._before = self._total = self._errors = 0
        self._first = True

    def __call__(self, done: int, total: int, errors: int) -> None:
        if self._first:
            self._before, self._first = done, False
            if done:
                note(f"{done:,} of {total:,} inputs were done before.")
        self._done, self._total, self._errors = done, total, errors
        self._bars("answers", done, total)
        if not sys.stderr.isatty() and time.monotonic() - self._said >= _SAY_EVERY_S:
            self.say("at work")

    def say(self, what: str) -> None:
        self._said = time.monotonic()
        rate = (self._done - self._before) / max(self.elapsed_s, 1e-9)
        note(f"{what}: {self._done:,} of {self._total:,} inputs, {self._errors:,} errors, {rate:.2f} a second.")

    @property
    def elapsed_s(self) -> float:
        return time.monotonic() - self._started


def _say_end(result: BatchResult, out: Path, elapsed_s: float) -> None:
    merged = result.merged
    fresh = result.inputs - result.done_before
    wrong = f"; {merged.errors:,} rows say in `error` what is wrong with their input" if merged.errors else ""
    note(f"wrote {out}: {merged.rows:,} rows for {result.inputs:,} inputs{wrong}.")
    if fresh:
        note(f"{fresh:,} inputs in {elapsed_s:.1f} s, {fresh / max(elapsed_s, 1e-9):.2f} a second.", dim=True)


def _absolute(name: str) -> str:
    """A path as seen from anywhere, so that a run can be continued from another folder; addresses stay."""
    return name if re.match(r"(data:|[A-Za-z][A-Za-z0-9+.\-]+://)", name) else os.path.abspath(os.path.expanduser(name))


def _same_everywhere(name: str) -> str:
    """The model's name for workers in other folders: a checkpoint's folder by its whole path."""
    return os.path.abspath(name) if os.path.isfile(os.path.join(name, "config.json")) else name
