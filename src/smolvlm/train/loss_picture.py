"""The curve of the loss as a picture."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

logger = logging.getLogger(__name__)


def draw_losses(losses: Sequence[tuple[int, float]], path: Path) -> None:
    """Write a PNG of loss by step, each step pale and their running mean on top; nothing where matplotlib is missing."""
    try:
        from matplotlib.figure import Figure  # a figure of its own: no global state of pyplot
    except ImportError:
        logger.info("matplotlib is not installed, so %s is not drawn", path.name)
        return
    steps, values = [step for step, _ in losses], [loss for _, loss in losses]
    figure = Figure(figsize=(7, 4), dpi=120)
    axes = figure.subplots()
    axes.plot(steps, values, color="tab:blue", alpha=0.3, linewidth=0.8, label="loss")
    axes.plot(steps, running_mean(values), color="tab:blue", label="running mean")
    axes.set_xlabel("step")
    axes.set_ylabel("loss (nats a learned token)")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    try:
        figure.savefig(path)
    except OSError as error:
        logger.warning("%s: the picture of the loss could not be written (%s)", path, error.strerror or error)


def running_mean(values: Sequence[float], share: float = 0.05) -> list[float]:
    """Exponential mean over about `share` of the steps, with the start unbiased."""
    keep = 1.0 - 1.0 / max(1.0, share * len(values))
    means: list[float] = []
    total = weight = 0.0
    for value in values:
        total, weight = keep * total + value, keep * weight + 1.0
        means.append(total / weight)
    return means
