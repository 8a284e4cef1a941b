"""Printed pages: rows of text, left and right, in one font, as large as the page allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smolvlm.synth.backgrounds import background
from smolvlm.synth.fonts import fonts, load_font
from smolvlm.synth.sample import Split

LINE = 1.36  # baseline to baseline, in font sizes
_GAP = 1.2  # font sizes that must stay free between a row's left and right text


@dataclass(frozen=True)
class Row:
    """One line of a page: `left` starts at the margin, `right` ends at the other; `centred` puts `left` in the middle."""

    left: str = ""
    right: str = ""
    centred: bool = False
    scale: float = 1.0
    rule: bool = False  # a thin line above


def print_page(
    rng: np.random.Generator, rows: Sequence[Row], width_px: int, height_px: int, split: Split, *, paper_share: float = 1.0
) -> Image.Image:
    """An RGB picture of a sheet with `rows` lying on one of the split's backgrounds.

    paper_share: how much of the width the sheet takes (a receipt is narrow). The font is one of the split's; its size
    is 80 to 100 % of the largest at which every row fits.
    """
    canvas = background(rng, width_px, height_px, split)
    border = float(rng.uniform(0.0, 0.03)) * width_px
    half = paper_share * width_px / 2 - border
    left, right = width_px / 2 - half, width_px / 2 + half
    grey = int(rng.integers(236, 256))
    sheet = (grey, grey - int(rng.integers(0, 8)), grey - int(rng.integers(0, 16)))
    draw = ImageDraw.Draw(canvas)
    draw.rectangle((left, border, right, height_px - border), fill=sheet)
    margin = 0.035 * width_px + float(rng.uniform(0, 0.015)) * width_px
    font_name = str(rng.choice(fonts(split)))
    room = (right - left - 2 * margin, height_px - 2 * border - 2 * margin)
    size = largest_size(rows, font_name, room) * float(rng.uniform(0.8, 1.0))
    ink = tuple(int(v) for v in rng.integers(0, 60, 3))
    used = LINE * size * sum(row.scale for row in rows)
    y = border + margin + float(rng.uniform(0, max(0.0, room[1] - used)))
    for row in rows:
        _print_row(draw, row, load_font(font_name, max(6, int(size * row.scale))), (left + margin, right - margin), y, ink)
        y += LINE * size * row.scale
    return canvas


def largest_size(rows: Sequence[Row], font_name: str, room: tuple[float, float]) -> float:
    """The largest font size in pixels at which `rows` fit a room of (width, height) pixels."""
    trial = load_font(font_name, 100)
    widest = max(row.scale * (_width(trial, row) / 100) for row in rows)
    return min(room[0] / widest, room[1] / (LINE * sum(row.scale for row in rows)))


def _width(font: ImageFont.FreeTypeFont, row: Row) -> float:
    gap = _GAP * font.size if row.left and row.right else 0.0
    return font.getlength(row.left) + font.getlength(row.right) + gap


def _print_row(
    draw: ImageDraw.ImageDraw, row: Row, font: ImageFont.FreeTypeFont, edges: tuple[float, float], y: float, ink: tuple[int, ...]
) -> None:
    x = (edges[0] + edges[1] - font.getlength(row.left)) / 2 if row.centred else edges[0]
    # "ls": the baseline is placed, not the box, or capitals and "g" would stand on different lines.
    baseline = y + font.size
    draw.text((x, baseline), row.left, font=font, fill=ink, anchor="ls")
    if row.right:
        draw.text((edges[1], baseline), row.right, font=font, fill=ink, anchor="rs")
    if row.rule:
        draw.line((edges[0], y + 0.06 * font.size, edges[1], y + 0.06 * font.size), fill=ink)
