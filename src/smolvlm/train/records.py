"""What a run leaves to read: `log.jsonl`, TensorBoard where it is installed, a bar on a terminal, a picture at the end."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from smolvlm.errors import TrainingError
from smolvlm.options.training import LoopOptions
from smolvlm.train.loss_picture import draw_losses
from smolvlm.train.run_folder import write_text

logger = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"
PICTURE_FILE = "loss.png"


@dataclass(frozen=True)
class StepRecord:
    """One optimizer step. loss: mean over the learned tokens. grad_norm: before clipping. lr: rate of each part."""

    step: int
    loss: float
    grad_norm: float
    lr: Mapping[str, float]
    seconds: float
    metrics: Mapping[str, float] = field(default_factory=dict)

    def to_dict(self, tokens: int, seconds_left: float | None) -> dict[str, Any]:
        """One line of the log: `lr_vision` and so on by part, tokens/s of all processes together."""
        line: dict[str, Any] = {"step": self.step, "loss": self.loss, "grad_norm": self.grad_norm}
        line |= {f"lr_{part}": rate for part, rate in self.lr.items()}
        line |= {"tokens": tokens, "tokens_per_s": round(tokens / max(self.seconds, 1e-9), 1), "seconds": round(self.seconds, 4)}
        if seconds_left is not None:
            line["seconds_left"] = round(seconds_left, 1)
        return line | dict(self.metrics)


class RunLog:
    """Open while a run goes on, from step `done`: later lines of an interrupted run are dropped, for they come again."""

    def __init__(self, options: LoopOptions, done: int, on_step: Callable[[StepRecord], None] | None, *, active: bool) -> None:
        self.options, self.on_step, self.active = options, on_step, active
        self.path = options.out / LOG_FILE
        self.last_metrics: dict[str, float] = {}
        self._lines = _read_lines(self.path, done) if active else []
        self._spent_s, self._started_at = 0.0, 0.0
        self._file: Any = None
        self._board: Any = None
        self._bar: Any = None

    def __enter__(self) -> RunLog:
        if not self.active:
            return self
        try:
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in self._lines))
            self._file = self.path.open("a", encoding="utf-8", buffering=1)
        except OSError as error:
            raise TrainingError(f"{self.path}: cannot be written ({error.strerror or error}).") from None
        self._board = _tensorboard(self.options.out / "tensorboard")
        if self.options.progress_bar and sys.stderr.isatty():
            self._bar = _Bar()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for part in (self._bar, self._board, self._file):
            if part is not None:
                part.close()
        if self.active and self._lines:
            draw_losses(self.losses(), self.options.out / PICTURE_FILE)

    def add(self, record: StepRecord, *, tokens: int, progress: float) -> None:
        """Note a step; `progress` is the share of the run that is done, 0..1."""
        if not self.active:
            return
        if self._spent_s == 0.0:
            self._started_at = progress  # the first step only sets the clock: how far a resumed run was is not its pace
            self._spent_s = 1e-9
            left = None
        else:
            self._spent_s += record.seconds
            left = self._spent_s * (1 - progress) / max(progress - self._started_at, 1e-9)
        self.last_metrics = dict(record.metrics)
        if self._bar is not None:
            self._bar.show(record, tokens, progress, left)
        if record.step % self.options.log_every and progress < 1:
            return
        line = record.to_dict(tokens, left)
        self._lines.append(line)
        try:
            self._file.write(json.dumps(line) + "\n")
        except OSError as error:  # a full disk must not end a run before its next save was tried
            logger.warning("%s: a line of the log is lost (%s)", self.path, error.strerror or error)
        if self._board is not None:
            for name, value in line.items():
                if name != "step" and isinstance(value, int | float):
                    self._board.add_scalar(name, value, record.step)
        if self.on_step is not None:
            self.on_step(record)

    def losses(self) -> tuple[tuple[int, float], ...]:
        """(step, loss) of every line, earlier parts of the run included."""
        return tuple((int(line["step"]), float(line["loss"])) for line in self._lines)


class _Bar:
    """Percent done, loss, tokens/s and time left, on stderr."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

        columns = (TextColumn("training"), BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[figures]}"))
        self._progress = Progress(*columns, console=Console(stderr=True))
        self._task = self._progress.add_task("training", total=1.0, figures="")
        self._progress.start()

    def show(self, record: StepRecord, tokens: int, progress: float, left: float | None) -> None:
        minutes = "" if left is None else f"  {int(left) // 3600}:{int(left) // 60 % 60:02d}:{int(left) % 60:02d} left"
        figures = f"step {record.step}  loss {record.loss:.4f}  {tokens / max(record.seconds, 1e-9):,.0f} tokens/s{minutes}"
        self._progress.update(self._task, completed=progress, figures=figures)

    def close(self) -> None:
        self._progress.stop()


def _read_lines(path: Path, done: int) -> list[dict[str, Any]]:
    """The log's lines up to step `done`. A last line that was cut by a kill is left out."""
    lines: list[dict[str, Any]] = []
    try:
        for text in path.read_text(encoding="utf-8").splitlines():
            line = json.loads(text)
            if int(line["step"]) <= done:
                lines.append(line)
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: its end cannot be read and is dropped (%s)", path, error)
    return lines


def _tensorboard(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.info("TensorBoard is not installed; %s has the same figures", LOG_FILE)
        return None
    return SummaryWriter(str(folder))
