"""The folder of a run: whose it is (`run.json`), so that a run goes on where it stopped and nobody's files are touched."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from smolvlm.errors import TrainingError
from smolvlm.options.training import LoopOptions

RUN_FILE = "run.json"


def open_run(options: LoopOptions, stage: str, *, world: int = 1) -> None:
    """Make `options.out`, or find in it a run of the same options. Raises TrainingError for anything else there."""
    out = options.out
    wanted = {"stage": stage, "fingerprint": options.fingerprint(), "processes": world, "options": options.to_dict()}
    try:
        if out.exists() and not out.is_dir():
            raise TrainingError(f"{out} is a file; name a folder for the run.")
        if out.is_dir() and any(out.iterdir()):
            _check_same(out, wanted)
            return
        out.mkdir(parents=True, exist_ok=True)
        write_text(out / RUN_FILE, json.dumps(wanted, indent=2) + "\n")
    except OSError as error:
        raise TrainingError(f"{out}: cannot be used for a run ({error.strerror or error}).") from None


def write_text(path: Path, text: str) -> None:
    """A small file, whole or not at all. Raises OSError."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _check_same(out: Path, wanted: dict[str, Any]) -> None:
    path = out / RUN_FILE
    if not path.is_file():
        raise TrainingError(f"{out} is not empty and holds no run of ours (no {RUN_FILE}); nothing there is touched: name another folder.")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        before = found["options"]
        same = found["stage"] == wanted["stage"] and found["fingerprint"] == wanted["fingerprint"]
        changed = sorted(k for k in wanted["options"].keys() | before.keys() if before.get(k) != wanted["options"].get(k))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise TrainingError(f"{path} cannot be read ({error}); name another folder.") from None
    if not same:
        shown = "; ".join(f"{k} was {before.get(k)!r} and is {wanted['options'].get(k)!r}" for k in changed[:4])
        raise TrainingError(
            f"{out} holds a run of other options ({shown or 'another stage'}); repeat that command to "
            "go on with it, or name another folder."
        )
