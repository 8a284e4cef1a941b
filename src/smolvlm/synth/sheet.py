"""A contact sheet: many small pictures with a few lines of text under each, on one page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smolvlm.synth.fonts import load_font
from smolvlm.synth.sample import Sample

_FONT, _FONT_PX, _LINE_PX = "05.ttf", 13, 17  # Open Sans: the plainest one to read small
_GAP_PX, _SEAM_PX = 10, 4
_PAPER = (250, 250, 248)
_TONES = {"plain": (40, 40, 40), "good": (20, 120, 50), "bad": (185, 30, 30)}


@dataclass(frozen=True)
class Line:
    """A piece of text, wrapped where it is wider than its cell."""

    text: str
    tone: Literal["plain", "good", "bad"] = "plain"


@dataclass(frozen=True, eq=False)
class Cell:
    """A picture and what stands under it."""

    picture: Image.Image
    lines: tuple[Line, ...] = ()


def contact_sheet(cells: Sequence[Cell], *, columns: int, cell_px: int = 192) -> Image.Image:
    """The cells row by row on one RGB page, each picture scaled into a square of `cell_px` pixels, never cropped.

    A row is as high as its longest text. `cells` must not be empty.
    """
    assert cells, "a sheet shows something"
    font = load_font(_FONT, _FONT_PX)
    texts = [[(piece, line.tone) for line in cell.lines for piece in _wrapped(line.text, font, cell_px)] for cell in cells]
    starts = range(0, len(cells), columns)
    heights = [cell_px + 4 + _LINE_PX * max(len(text) for text in texts[at : at + columns]) for at in starts]
    size = (_GAP_PX + min(columns, len(cells)) * (cell_px + _GAP_PX), _GAP_PX + sum(heights) + _GAP_PX * len(heights))
    page = Image.new("RGB", size, _PAPER)
    draw = ImageDraw.Draw(page)
    top = _GAP_PX
    for at, height in zip(starts, heights, strict=True):
        for column, (cell, text) in enumerate(zip(cells[at : at + columns], texts[at : at + columns], strict=True)):
            left = _GAP_PX + column * (cell_px + _GAP_PX)
            picture = _fitted(cell.picture, cell_px)
            page.paste(picture, (left + (cell_px - picture.width) // 2, top + (cell_px - picture.height) // 2))
            for row, (piece, tone) in enumerate(text):
                draw.text((left, top + cell_px + 4 + row * _LINE_PX), piece, font=font, fill=_TONES[tone])
        top += height + _GAP_PX
    return page


def sample_cell(sample: Sample, *, questions: int = 2) -> Cell:
    """A sample as a cell: two pictures side by side, up to four frames of a clip in a square; the first questions."""
    frames = [Image.fromarray(frame) for frame in sample.frames]
    if len(frames) > 4:
        frames = [frames[round(at)] for at in np.linspace(0, len(frames) - 1, 4)]
    columns = min(len(frames), 2)
    width, height = frames[0].size  # the frames of one sample have one size
    right, down = width + _SEAM_PX, height + _SEAM_PX
    rows = -(-len(frames) // columns)
    mosaic = Image.new("RGB", (columns * right - _SEAM_PX, rows * down - _SEAM_PX), _PAPER)
    for number, frame in enumerate(frames):
        mosaic.paste(frame, (number % columns * right, number // columns * down))
    lines = [Line(f"{question.text} - {question.answer}") for question in sample.questions[:questions]]
    return Cell(mosaic, tuple(lines))


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    """The whole picture, scaled so that its longer side is `side`."""
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width_px: int) -> list[str]:
    """Lines of whole words; a word that is wider than the cell has a line of its own."""
    lines: list[str] = []
    for word in text.split():
        if lines and font.getlength(f"{lines[-1]} {word}") <= width_px:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines
