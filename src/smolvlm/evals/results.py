"""Answers on disk: one JSON line an item, so that a run that was killed goes on where it ended."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from smolvlm.errors import EvalError

ITEMS_FILE = "items.jsonl"
RUN_FILE = "run.json"


@dataclass(frozen=True)
class Result:
    """One answered item. right: as its task counts; strict: word for word, which differs for captions only."""

    task: str
    number: int
    question: str
    expected: str
    answer: str
    right: bool
    strict: bool


class ResultLog:
    """The folder of one run, or nothing at all (folder=None): then results live in memory only.

    identity: what the results depend on (model, fingerprint, suite, settings). Raises EvalError when the folder holds the
    results of another run, holds lines that are no results, or cannot be written.
    """

    def __init__(self, folder: Path | None, identity: Mapping[str, Any]) -> None:
        self.folder = folder
        self.results: dict[tuple[str, int], Result] = {}
        if folder is None:
            return
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._claim(folder / RUN_FILE, identity)
            self._read(folder / ITEMS_FILE)
        except OSError as error:
            raise EvalError(f"{folder}: cannot keep results there ({error.strerror}); pass another folder.") from None

    def add(self, results: Iterable[Result]) -> None:
        """Keep results, on disk too; they survive a kill of the process right after."""
        new = list(results)
        self.results |= {(result.task, result.number): result for result in new}
        if self.folder is None:
            return
        try:
            with (self.folder / ITEMS_FILE).open("a", encoding="utf-8") as file:
                file.write("".join(json.dumps(asdict(result), ensure_ascii=False) + "\n" for result in new))
        except OSError as error:
            raise EvalError(
                f"{self.folder / ITEMS_FILE}: cannot be written ({error.strerror}); "
                "make room and run the same command again: it goes on from there."
            ) from None

    def _claim(self, path: Path, identity: Mapping[str, Any]) -> None:
        if not path.exists():
            if (path.parent / ITEMS_FILE).exists():
                raise EvalError(
                    f"{path.parent} holds an {ITEMS_FILE} but no {RUN_FILE}, so whose answers they are is not known; pass another folder."
                )
            temporary = path.with_suffix(".tmp")
            temporary.write_text(json.dumps(identity, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(temporary, path)
            return
        try:
            before = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            before = None
        if not isinstance(before, dict):
            raise EvalError(f"{path} is not the record of a run; pass another folder.")
        differing = sorted(key for key in {*before, *identity} if before.get(key) != identity.get(key))
        if differing:
            changed = ", ".join(f"{key} was {before.get(key)!r} and is {identity.get(key)!r}" for key in differing)
            raise EvalError(f"{path.parent} holds the results of another run: {changed}; pass another folder.")

    def _read(self, path: Path) -> None:
        """Take over earlier results. A last line without its end was cut off by a kill: it is dropped from the file."""
        if not path.exists():
            return
        raw = path.read_bytes()
        whole = raw[: raw.rfind(b"\n") + 1]
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                result = _result(json.loads(line))
            except (ValueError, TypeError):
                raise EvalError(f"{path}, line {number}: not a result; remove the line or pass another folder.") from None
            self.results[result.task, result.number] = result
        if len(whole) < len(raw):
            os.truncate(path, len(whole))


def _result(raw: Any) -> Result:
    """Raises TypeError for anything else than what `add` writes."""
    result = Result(**raw)
    kinds = {"number": int, "right": bool, "strict": bool}
    wrong = [name for name, value in asdict(result).items() if type(value) is not kinds.get(name, str)]
    if wrong:
        raise TypeError(f"{', '.join(wrong)}")
    return result
