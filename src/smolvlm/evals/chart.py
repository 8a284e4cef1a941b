"""The report as a picture: a bar a task with its interval, and a mark where a constant answer would be."""

from __future__ import annotations

from pathlib import Path

from smolvlm.errors import EvalError, MissingExtraError
from smolvlm.evals.report import Report, percent

PICTURE_FILE = "report.png"


def save_chart(report: Report, folder: Path) -> Path:
    """Write report.png. Raises MissingExtraError without matplotlib, EvalError when the folder cannot be written."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("the picture of a report", "train") from None

    rows = report.rows
    # A figure of its own, not pyplot's: nothing global is touched, and no display is needed.
    figure = Figure(figsize=(8.5, 1.5 + 0.32 * len(rows)), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    places = range(len(rows))
    shares = [100 * row.share for row in rows]
    axes.barh(places, shares, height=0.62, color="#5b8db8", zorder=2, label="right")
    axes.errorbar(
        shares,
        places,
        fmt="none",
        ecolor="#1d3c57",
        elinewidth=1.4,
        capsize=3,
        zorder=3,
        label="95 % interval",
        xerr=[[100 * (row.share - row.low) for row in rows], [100 * (row.high - row.share) for row in rows]],
    )
    axes.scatter(
        [100 * row.baseline for row in rows], places, marker="|", s=190, linewidths=2.6, color="#d1495b", zorder=4, label="constant answer"
    )
    for place, row in zip(places, rows, strict=True):
        axes.text(101.5, place, percent(row.share), va="center", ha="left", fontsize=9)
    axes.set_yticks(places, [row.task.replace("_", " ") for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first task on top
    axes.set_xlim(0, 100)
    axes.set_xlabel("right answers, %")
    axes.grid(axis="x", color="#dddddd", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(report.title.replace("$", r"\$"), fontsize=11)
    figure.legend(loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    path = folder / PICTURE_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    except OSError as error:
        raise EvalError(f"{path}: cannot be written ({error.strerror}); pass another folder.") from None
    return path
