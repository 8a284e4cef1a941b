"""All parts of a run, in the order of its inputs -> one Parquet file, which appears whole or not at all."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from smolvlm.checkpoint.folder import sync
from smolvlm.media.labels import one_line
from smolvlm.scale.errors import BatchError, parquet
from smolvlm.scale.folder import RunFolder, output_schema
from smolvlm.scale.plan import Plan

_ROWS_A_GROUP = 20_000


@dataclass(frozen=True)
class Merged:
    """What the output holds. `seconds` is the sum of its column: the time that workers spent on these rows."""

    rows: int
    errors: int
    seconds: float


def merge(folder: RunFolder, plan: Plan, questions: int, out: Path, *, overwrite: bool) -> Merged:
    """Write `out` and say what is in it. Raises BatchError for a part that is damaged or not complete, or a full disk."""
    import pyarrow as pa
    import pyarrow.compute as pc

    pq = parquet()
    rows, errors, seconds, waiting, held = 0, 0, 0.0, [], 0
    temporary = folder.path / "merged.tmp"  # the same file system as `out`, and swept away by the next start
    try:
        with temporary.open("wb") as file:
            with pq.ParquetWriter(file, output_schema()) as writer:
                for number in range(plan.parts):
                    table = _part(folder, number, plan.count(number) * questions)
                    rows, errors = rows + table.num_rows, errors + table.num_rows - table["error"].null_count
                    seconds += pc.sum(table["seconds"]).as_py() or 0.0
                    waiting.append(table)
                    held += table.num_rows
                    if held >= _ROWS_A_GROUP:
                        writer.write_table(pa.concat_tables(waiting))
                        waiting, held = [], 0
                if waiting:
                    writer.write_table(pa.concat_tables(waiting))
            sync(file)
        _put(temporary, out, overwrite)
    except OSError as error:
        raise BatchError(
            f"{out}: cannot be written ({one_line(error)}); make room and run the same command again: all "
            f"parts are done, and kept in {folder.path}."
        ) from None
    return Merged(rows, errors, seconds)


def _part(folder: RunFolder, number: int, expected: int):  # type: ignore[no-untyped-def]  # pyarrow has no types
    path = folder.part(number)
    try:
        table = parquet().read_table(path, schema=output_schema())
    except (OSError, ValueError) as error:
        raise BatchError(f"{path}: is damaged ({one_line(error)}); delete it and run the same command again.") from None
    if table.num_rows != expected:
        raise BatchError(f"{path}: holds {table.num_rows} rows where the plan has {expected}; delete it and run the same command again.")
    return table


def _put(temporary: Path, out: Path, overwrite: bool) -> None:
    if overwrite:
        os.replace(temporary, out)
        return
    try:
        os.link(temporary, out)  # unlike a rename it never replaces what came meanwhile
    except FileExistsError:
        raise BatchError(
            f"{out} has come into being while the run went on; run the same command with --overwrite, or "
            "move that file away: all parts are done."
        ) from None
    except OSError:  # a file system without links
        os.rename(temporary, out)
        return
    temporary.unlink(missing_ok=True)
