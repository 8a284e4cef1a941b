"""What reaches the terminal: results on stdout; notes, progress and everything else on stderr."""

from __future__ import annotations

import json
import os
import sys
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID

_STAGES = {"weights": "loading weights", "frames": "reading frames", "tiles": "looking", "download": "downloading"}


def one_line(text: str) -> str:
    """`text` on one line, with what a terminal could obey replaced."""
    return "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))


def terminal_safe(text: str) -> str:
    """An answer as a terminal may show it: line breaks and tabs stay, escape sequences cannot."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def write(text: str, *, flush: bool = False) -> None:
    """A result, or a piece of one, on stdout: exact in a pipe or a file, made harmless on a terminal."""
    sys.stdout.write(terminal_safe(text) if sys.stdout.isatty() else text)
    if flush:
        sys.stdout.flush()


def write_json(value: Any) -> None:
    """One JSON document on stdout."""
    write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_table(rows: list[tuple[str, str]]) -> None:
    """Two columns on stdout, the first as wide as its longest cell."""
    width = max((len(name) for name, _ in rows), default=0)
    for name, value in rows:
        write(f"{name:{width}}  {value}\n")


def note(text: str, *, dim: bool = False) -> None:
    """One line on stderr, after the program's name; `dim` greys it where that is possible and wanted."""
    line = f"smolvlm: {one_line(text)}"
    if dim and sys.stderr.isatty() and not os.environ.get("NO_COLOR"):
        line = f"\x1b[2m{line}\x1b[0m"
    sys.stdout.flush()  # where both streams are one terminal, their order is the order of events
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def human_size(count: int) -> str:
    """A size in bytes for people: decimal, as disks and the Hub count."""
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if count >= unit:
            return f"{count / unit:.2f} {name}"
    return f"{count} bytes"


class Bars:
    """Progress bars on stderr while a `with` block runs; nothing at all where stderr is not a terminal.

    An instance is an `on_progress(stage, done, total)` of the library; `download` is one of `hub`, in bytes.
    """

    def __init__(self) -> None:
        self._progress: RichProgress | None = None
        self._tasks: dict[str, TaskID] = {}
        self._said_download = False

    def __enter__(self) -> Bars:
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=Console(stderr=True), transient=True)
            self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._progress is not None:
            self._progress.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._progress is None:
            return
        if stage not in self._tasks:
            self._tasks[stage] = self._progress.add_task(_STAGES.get(stage, stage), total=total)
        self._progress.update(self._tasks[stage], completed=done, total=total)

    def download(self, done: int, total: int) -> None:
        """Bytes shown in MB. Off a terminal one line says that a download has begun: it may take long."""
        if self._progress is None and not self._said_download:
            note(f"downloading {human_size(total)} ..." if total else "downloading ...")
            self._said_download = True
        self("download", done // 1_000_000, -(-total // 1_000_000))
