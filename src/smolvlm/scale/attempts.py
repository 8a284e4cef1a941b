"""Inputs that end the process: a file that breaks a decoder, or fills the memory, would stop every restart at its place.

While a part is worked on, a note beside it names the input that is being read. A process that ends cleanly takes the
note away; a note that is found at the start of a part therefore tells where the last process died.
"""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from smolvlm.media.labels import one_line
from smolvlm.scale.errors import BatchError
from smolvlm.scale.folder import RunFolder

MAX_DEATHS = 3  # a machine may be switched off twice in the same second of work, but hardly three times


class Attempts:
    """The note of one part. Use it as a context manager around the part's work."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._item, self._deaths = _read(path)

    def may_try(self, item_id: str) -> bool:
        """Note that `item_id` comes next; False when it has ended `MAX_DEATHS` processes and must be left out.

        Raises BatchError when the note cannot be written.
        """
        deaths = self._deaths if item_id == self._item else 0
        if deaths >= MAX_DEATHS:
            return False
        try:
            RunFolder.write_json(self._path, {"item": item_id, "deaths": deaths + 1})
        except OSError as error:
            raise BatchError(
                f"{self._path}: cannot be written ({one_line(error)}); make room and run the same command again: what is done is kept."
            ) from None
        return True

    def __enter__(self) -> Attempts:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)


def _read(path: Path) -> tuple[str, int]:
    """The input at which the last process died, and how many died there. A note that cannot be read is none."""
    try:
        note = json.loads(path.read_text(encoding="utf-8"))
        return str(note["item"]), int(note["deaths"])
    except (OSError, ValueError, TypeError, KeyError):
        return "", 0
