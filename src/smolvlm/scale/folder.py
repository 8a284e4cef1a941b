"""The folder of one run, beside its output: whose it is, its plan, and one file for each part that is done.

    results.parquet.parts/run.json               the settings that the answers depend on
    results.parquet.parts/plan.parquet           every input, in order
    results.parquet.parts/part-00000017.parquet  all rows of part 17

A file appears under its name only when it is whole, and a part has one name: doing a part twice changes nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from smolvlm.checkpoint.folder import sync
from smolvlm.media.labels import one_line
from smolvlm.scale.errors import BatchError, parquet
from smolvlm.scale.settings import BatchSettings

_RUN, _PLAN, _LOCK = "run.json", "plan.parquet", "lock"
_FORMAT = 2  # since 2 a plan says which folder binds a path, and answers have warnings
COLUMNS = {
    "id": "string",
    "source": "string",
    "question": "string",
    "answer": "string",
    "finish_reason": "string",
    "prompt_tokens": "int64",
    "completion_tokens": "int64",
    "seconds": "float64",
    "error": "string",
    "model": "string",
    "warnings": "string",
}


def output_schema() -> Any:
    """The columns of the output and of every part, as pyarrow's schema."""
    parquet()
    import pyarrow as pa

    return pa.schema([(name, getattr(pa, kind)()) for name, kind in COLUMNS.items()])


class RunFolder:
    """The folder of the run whose output is `out`. Making an object touches nothing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.plan = path / _PLAN

    @classmethod
    def beside(cls, out: Path) -> RunFolder:
        return cls(out.with_name(out.name + ".parts"))

    def part(self, number: int) -> Path:
        return self.path / f"part-{number:08d}.parquet"

    def trying(self, number: int) -> Path:
        """Where a worker notes which input of a part it is at (attempts.py)."""
        return self.path / f"trying-{number:08d}.json"

    def done(self) -> set[int]:
        """The numbers of the parts that are there."""
        names = (entry.name for entry in os.scandir(self.path))
        return {int(n[5:-8]) for n in names if n.startswith("part-") and n.endswith(".parquet") and n[5:-8].isdecimal()}

    @contextlib.contextmanager
    def claimed(self, settings: BatchSettings) -> Iterator[None]:
        """Make the folder, or take it over from an earlier start of the same run, alone.

        Raises BatchError when it belongs to other settings or to nobody known, or when another process works in it.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            with self._locked():
                self._claim(settings)
                for left in self.path.glob("*.tmp"):
                    left.unlink(missing_ok=True)
                yield
        except OSError as error:
            raise BatchError(
                f"{self.path}: cannot be used ({one_line(error)}); make room or pass another --out, and "
                "run the same command again: what is done is kept."
            ) from None

    def settings(self) -> BatchSettings:
        """Of the run that this folder belongs to: how workers learn what to do."""
        return BatchSettings.from_dict(self._record()["settings"])

    def _claim(self, settings: BatchSettings) -> None:
        if not self.plan.exists():  # nothing is done yet: an earlier start that ended here binds nobody
            ours = (_LOCK, _RUN)
            if others := [e.name for e in os.scandir(self.path) if e.name not in ours and not e.name.endswith(".tmp")]:
                raise BatchError(f"{self.path} holds {others[0]} but no {_PLAN}, so whose it is is not known; pass another --out.")
            self.write_json(self.path / _RUN, {"format": _FORMAT, "settings": settings.to_dict()})
            return
        before, now = self.settings().identity(), settings.identity()
        changed = [name for name in {**now, **before} if before.get(name) != now.get(name)]
        if changed:
            what = "; ".join(f"{name} was {_shown(before.get(name))} and is {_shown(now.get(name))}" for name in changed)
            raise BatchError(
                f"{self.path} holds parts of a run with other settings: {what}. Pass another --out, or delete that folder to begin again."
            )

    def _record(self) -> dict[str, Any]:
        path = self.path / _RUN
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            if record["format"] == _FORMAT:
                BatchSettings.from_dict(record["settings"])
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise BatchError(
                f"{path}: is not the record of a run ({one_line(error)}); pass another --out, or delete {self.path}."
            ) from None
        if record["format"] != _FORMAT:
            raise BatchError(
                f"{path}: was written by another version of smolvlm; run the same command with another --out, "
                f"or delete {self.path} and run it again."
            )
        return dict(record)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process plans, hands out and merges. The system lifts the lock when that process ends, however it ends."""
        with (self.path / _LOCK).open("a") as file:
            try:
                import fcntl
            except ImportError:  # Windows
                yield
                return
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise BatchError(f"{self.path}: another process is at work on this run; wait for it.") from None
            except OSError:  # a network file system without locks
                pass
            yield

    def write_rows(self, number: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Put a part in place, whole. Raises BatchError when the disk refuses."""
        import pyarrow as pa

        table = pa.Table.from_pylist(list(rows), schema=output_schema())
        path = self.part(number)
        # Names differ: on a cluster a worker that was taken for dead may write the same part at the same time.
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            with temporary.open("wb") as file:
                parquet().write_table(table, file)
                sync(file)
            os.replace(temporary, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise BatchError(
                f"{path}: cannot be written ({one_line(error)}); make room and run the same command again: what is done is kept."
            ) from None

    @staticmethod
    def write_json(path: Path, value: Any) -> None:
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        try:
            temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(temporary, path)
        finally:  # Ctrl-C comes at any moment
            temporary.unlink(missing_ok=True)

    def remove(self) -> None:
        """Delete the folder, once its rows are in the output."""
        shutil.rmtree(self.path, ignore_errors=True)


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 120 else f"{text[:117]}..."
