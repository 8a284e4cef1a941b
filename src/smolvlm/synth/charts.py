"""Bar charts with exact values: which bar is highest or lowest, what a bar shows, how many there are."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from smolvlm.synth.finish import finish
from smolvlm.synth.fonts import fonts, load_font
from smolvlm.synth.palette import shade
from smolvlm.synth.questions import phrased
from smolvlm.synth.sample import Question, Sample, Split
from smolvlm.synth.world import World

# Labels of up to three letters: they must be read at a fifteenth of the picture's side.
_LABELS = (
    ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"),
    ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"),
    ("A", "B", "C", "D", "E", "F", "G", "H"),
    ("Tom", "Ann", "Ben", "Eva", "Leo", "Kim", "Max", "Sue"),
    ("Tea", "Ham", "Egg", "Pie", "Nut", "Fig", "Jam", "Oil"),
)
_BAR_COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "brown")
_HIGHEST = ("Which bar is the highest?", "Which bar is the tallest?", "What has the highest value?", "Which value is the largest?")
_LOWEST = ("Which bar is the lowest?", "Which bar is the shortest?", "What has the lowest value?", "Which value is the smallest?")
_VALUE = ("What is the value of {}?", "How high is the bar {}?", "Which value does {} have?", "What is the value for {}?")
_BARS = ("How many bars are there?", "How many bars does the chart have?", "Count the bars.")


@dataclass(frozen=True)
class Chart:
    """A chart before it is drawn. Values are whole numbers from 1 to `top`; no two are equal.

    printed: each value stands above its bar; else there are gridlines with numbers, and every value lies on a gridline.
    """

    labels: tuple[str, ...]
    values: tuple[int, ...]
    colours: tuple[tuple[int, int, int], ...]
    top: int
    step: int
    printed: bool

    def highest(self) -> str:
        return self.labels[int(np.argmax(self.values))]

    def lowest(self) -> str:
        return self.labels[int(np.argmin(self.values))]


def draw_chart(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """A chart of 3 to 5 bars (6 in a wide world) that fills the picture."""
    chart = random_chart(rng, 5 if world.max_count <= 5 else 6)
    picked = int(rng.integers(len(chart.labels)))
    questions = (
        Question("chart_highest", phrased(rng, _HIGHEST), chart.highest()),
        Question("chart_lowest", phrased(rng, _LOWEST), chart.lowest()),
        Question("chart_value", phrased(rng, _VALUE, chart.labels[picked]), str(chart.values[picked])),
        Question("chart_bars", phrased(rng, _BARS), str(len(chart.labels))),
    )
    canvas, _ = plot(rng, chart, world.side_px, split)
    return Sample("image", (finish(rng, canvas, strength=0.6),), questions)


def random_chart(rng: np.random.Generator, most_bars: int) -> Chart:
    """Three to `most_bars` bars; the labels keep their usual order in half of the charts."""
    count = int(rng.integers(3, most_bars + 1))
    pool = _LABELS[int(rng.integers(len(_LABELS)))]
    if rng.random() < 0.5:
        first = int(rng.integers(len(pool) - count + 1))
        labels = pool[first : first + count]
    else:
        labels = tuple(pool[int(i)] for i in rng.permutation(len(pool))[:count])
    printed = bool(rng.random() < 0.5)
    step = int(rng.choice((1, 2, 5, 10)))
    lines = int(rng.integers(max(5, count), 8)) if not printed else int(rng.integers(6, 11))
    top = lines * step
    # Two printed values may be one apart, but a bar must be visibly the highest: no two closer than a gridline.
    heights = (rng.permutation(lines)[:count] + 1) * step
    if printed and step > 1:
        heights = heights - rng.integers(0, max(1, step // 3), count)
    values = tuple(int(value) for value in heights)
    if rng.random() < 0.5:
        names = rng.permutation(len(_BAR_COLOURS))[:count]
        colours = tuple(shade(rng, _BAR_COLOURS[int(i)]) for i in names)
    else:
        colours = (shade(rng, str(rng.choice(_BAR_COLOURS))),) * count
    return Chart(labels, values, colours, top, step, printed)


def plot(rng: np.random.Generator, chart: Chart, side_px: int, split: Split) -> tuple[Image.Image, tuple[tuple[int, int, int, int], ...]]:
    """The picture and the box (left, top, right, bottom) of each bar in pixels, right and bottom exclusive."""
    paper = int(rng.integers(232, 256))
    canvas = Image.new("RGB", (side_px, side_px), (paper, paper, paper - int(rng.integers(0, 10))))
    draw = ImageDraw.Draw(canvas)
    font_name = str(rng.choice(fonts(split)))
    ink = tuple(int(v) for v in rng.integers(0, 60, 3))
    count = len(chart.labels)
    left = round(side_px * (0.05 if chart.printed else 0.15))
    slot = (side_px * 0.97 - left) / count
    font = _fitting(font_name, [*chart.labels, str(chart.top)], slot * 0.84, round(side_px * 0.09))
    line_px = round(font.size * 1.3)
    base, ceiling = side_px - line_px - 2, line_px + round(side_px * 0.03)
    px_per_unit = (base - ceiling) / chart.top
    if not chart.printed:
        _gridlines(draw, chart, font_name, left, (base, px_per_unit), side_px, ink)
    width = slot * float(rng.uniform(0.55, 0.8))
    boxes = []
    for i, (label, value, colour) in enumerate(zip(chart.labels, chart.values, chart.colours, strict=True)):
        middle = left + (i + 0.5) * slot
        box = (round(middle - width / 2), round(base - value * px_per_unit), round(middle + width / 2), base)
        draw.rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=colour)
        draw.text((middle, base + 1.05 * font.size), label, font=font, fill=ink, anchor="ms")
        if chart.printed:
            draw.text((middle, box[1] - 3), str(value), font=font, fill=ink, anchor="ms")
        boxes.append(box)
    draw.line((left, base, round(side_px * 0.98), base), fill=ink)
    return canvas, tuple(boxes)


def _gridlines(
    draw: ImageDraw.ImageDraw, chart: Chart, font_name: str, left: int, scale: tuple[int, float], side_px: int, ink: tuple[int, ...]
) -> None:
    base, px_per_unit = scale
    font = _fitting(font_name, [str(chart.top)], left * 0.72, round(min(px_per_unit * chart.step * 0.95, 0.085 * side_px)))
    for value in range(0, chart.top + 1, chart.step):
        y = round(base - value * px_per_unit)
        draw.line((left, y, round(side_px * 0.98), y), fill=(190, 190, 190))
        draw.text((left - 3, y), str(value), font=font, fill=ink, anchor="rm")
    draw.line((left, base, left, round(base - chart.top * px_per_unit)), fill=ink)


def _fitting(font_name: str, texts: list[str], width_px: float, most_px: int) -> ImageFont.FreeTypeFont:
    """The font at the largest size up to `most_px` at which every text is at most `width_px` wide."""
    trial = load_font(font_name, 100)
    widest = max(trial.getlength(text) for text in texts) / 100
    return load_font(font_name, max(6, min(most_px, int(width_px / widest))))
