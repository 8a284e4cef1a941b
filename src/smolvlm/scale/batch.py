"""A whole run: claim the folder, freeze the plan, do the parts that are missing, merge them into one file."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from smolvlm.media.labels import one_line
from smolvlm.scale.errors import BatchError, parquet
from smolvlm.scale.folder import RunFolder
from smolvlm.scale.inputs import Inputs
from smolvlm.scale.merging import Merged, merge
from smolvlm.scale.plan import Plan, write_plan
from smolvlm.scale.pool import PoolOptions, do_on_ray
from smolvlm.scale.settings import BatchSettings
from smolvlm.scale.worker import PartReport, PartWorker
from smolvlm.vlm import SmolVLM

logger = logging.getLogger(__name__)

# Names that promise another format than is written.
_OTHER_FORMATS = (
    ".json",
    ".jsonl",
    ".ndjson",
    ".csv",
    ".tsv",
    ".txt",
    ".xlsx",
    ".xls",
    ".arrow",
    ".feather",
    ".orc",
    ".avro",
    ".db",
    ".sqlite",
    ".yaml",
    ".yml",
    ".xml",
    ".html",
    ".md",
    ".tar",
    ".zip",
    ".gz",
    ".zst",
)
OnProgress = Callable[[int, int, int], None]


@dataclass(frozen=True)
class BatchResult:
    """What a run ended with: the file's rows, and how many inputs were found done when it began."""

    inputs: int
    done_before: int
    merged: Merged


def run_batch(
    settings: BatchSettings,
    out: Path,
    *,
    overwrite: bool = False,
    pool: PoolOptions | None = None,
    load: Callable[[], SmolVLM] | None = None,
    on_progress: OnProgress | None = None,
) -> BatchResult:
    """Ask everything in `settings` and write `out`; after a kill the same call goes on.

    pool: None works in this process with the model that `load` gives (by default the one of `settings`); else on Ray.
    on_progress(inputs done, inputs in all, error rows so far). Raises BatchError, and what loading the model raises.
    """
    out = out.expanduser().absolute()
    parquet()
    check_out(out, overwrite)
    folder = RunFolder.beside(out)
    with folder.claimed(settings):
        plan = _planned(folder, settings, out)
        todo = sorted(set(range(plan.parts)) - folder.done())
        before = done = plan.inputs - sum(plan.count(part) for part in todo)
        errors = 0
        if on_progress is not None:
            on_progress(done, plan.inputs, errors)
        if todo:
            reports = _done_here(folder, todo, load) if pool is None else do_on_ray(folder, todo, pool)
            for report in reports:
                done, errors = done + plan.count(report.part), errors + report.errors
                if on_progress is not None:
                    on_progress(done, plan.inputs, errors)
        merged = merge(folder, plan, len(settings.questions), out, overwrite=overwrite)
        folder.remove()
    return BatchResult(plan.inputs, before, merged)


def check_out(out: Path, overwrite: bool) -> None:
    """Raise BatchError unless a run may write `out`. Cheap: to be asked before anything is loaded."""
    if out.suffix.lower() in _OTHER_FORMATS:
        raise BatchError(
            f"{out}: answers are written as Parquet only, not as {out.suffix[1:].lower()}; name it "
            f"{out.with_suffix('.parquet').name}, and read it with pandas, polars or DuckDB."
        )
    try:
        if out.is_dir():
            raise BatchError(f"{out} is a folder; name the file to write, such as {out / 'results.parquet'}.")
        if out.exists() and not overwrite:
            raise BatchError(f"{out} exists already; pass --overwrite to replace it at the end, or another --out.")
        out.parent.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:
        if isinstance(error, BatchError):
            raise
        raise BatchError(f"{out}: cannot be written ({one_line(error)}); pass another --out.") from None


def _planned(folder: RunFolder, settings: BatchSettings, out: Path) -> Plan:
    if not folder.plan.exists():
        inputs = Inputs(settings.inputs, settings.column, skipped={out, folder.path})
        try:
            count = write_plan(folder.plan, inputs, settings.part_inputs)
        except BatchError:
            folder.remove()  # nothing is done yet
            raise
        if inputs.left_out:
            logger.warning(
                "%d files are neither pictures nor videos by their names and first bytes and were left out, such as %s",
                len(inputs.left_out),
                inputs.left_out[0],
            )
        if inputs.repeated:
            logger.warning("%d inputs were named more than once; each is asked about once", inputs.repeated)
        if not count:
            folder.remove()
            raise BatchError(f"no picture or video was found in {', '.join(settings.inputs[:3])}; check the inputs.")
    return Plan(folder.plan)


def _done_here(folder: RunFolder, todo: Iterable[int], load: Callable[[], SmolVLM] | None) -> Iterable[PartReport]:
    worker = PartWorker(folder, load() if load is not None else None)
    try:
        for part in todo:
            try:
                report = worker.do(part)
            except KeyboardInterrupt:  # no input ended this process: wherever the signal came, no note of one stays
                folder.trying(part).unlink(missing_ok=True)
                raise
            yield report
    finally:
        worker.close()
