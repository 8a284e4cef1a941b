"""The bar chart of a comparison. Also from a report that was kept: python -m benchmarks.chart REPORT.json OUT.png"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PANELS = (
    ("vision", "Vision: tiles a second"),
    ("prefill", "Prefill: tokens a second"),
    ("decode-256", "Decode at 256: tokens a second"),
    ("decode-2048", "Decode at 2,048: tokens a second"),
    ("image", "A 1280 x 720 picture, 64 new tokens: seconds"),
    ("video", "64 frames, 64 new tokens: seconds"),
)
_OURS, _OTHERS = "#d1495b", "#8d99ae"


def draw(report: Mapping[str, Any], out: Path) -> bool:
    """Write a PNG with a panel a task, our bars in a colour of their own. False where matplotlib or figures are missing."""
    try:
        from matplotlib.figure import Figure
    except ModuleNotFoundError:
        return False
    rows = {row["task"]: row for row in report["rows"]}
    panels = [(rows[task], title) for task, title in _PANELS if task in rows]
    if not panels:
        return False
    across = min(2, len(panels))
    down = -(-len(panels) // across)
    figure = Figure(figsize=(6.2 * across, 2.9 * down), layout="constrained")
    for number, (row, title) in enumerate(panels):
        axes = figure.add_subplot(down, across, number + 1)
        # Seconds a tile as tiles a second: in the upper panels longer bars are better.
        invert = row["unit"] == "s/tile"
        figures = {system: 1 / value if invert else value for system, value in row["figures"].items()}
        names = list(figures)[::-1]
        colours = [_OURS if name.startswith("smolvlm") else _OTHERS for name in names]
        bars = axes.barh(names, [figures[name] for name in names], color=colours)
        axes.bar_label(bars, [_label(figures[name]) for name in names], padding=3, fontsize=8)
        axes.set_title(title + (", less is better" if row["unit"] == "s" else ""), fontsize=10)
        axes.tick_params(labelsize=8)
        axes.margins(x=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    settings, machine = report["settings"], report["machine"]
    quick = " - QUICK, meaningless" if settings["quick"] else ""
    figure.suptitle(f"SmolVLM2 {settings['size'].upper()}, {machine['cpu']}, {settings['threads']} threads{quick}", fontsize=11)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=120)
    return True


def _label(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


if __name__ == "__main__":
    draw(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
