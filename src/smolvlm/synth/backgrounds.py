"""What is behind everything else: muted grounds that leave the ten named colours readable.

Each split has its own kinds: what a model learnt to look past in training must not be what it is tested on. All are
computed from small random arrays, since a background is drawn for every picture (well under a millisecond at 160 px).
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from smolvlm.errors import SynthError
from smolvlm.synth.sample import Split

Background: TypeAlias = Callable[[np.random.Generator, int, int], Image.Image]


def muted(rng: np.random.Generator, low: float = 0.15, high: float = 0.95) -> tuple[int, int, int]:
    """A colour that nobody would name after one of the ten: saturation below 0.2, brightness from `low` to `high`."""
    red, green, blue = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.0, 0.2), rng.uniform(low, high))
    return round(red * 255), round(green * 255), round(blue * 255)


def near(rng: np.random.Generator, colour: tuple[int, int, int], spread: int) -> tuple[int, int, int]:
    """A colour up to `spread` levels brighter (of a dark one) or darker, never more saturated."""
    step = rng.uniform(0.5, 1.0) * spread
    if sum(colour) < 384:
        red, green, blue = (min(255, round(channel + step)) for channel in colour)
    else:
        factor = 1 - step / max(colour)
        red, green, blue = (round(channel * factor) for channel in colour)
    return red, green, blue


def _small(values: npt.NDArray[np.floating], width: int, height: int, resample: Image.Resampling) -> Image.Image:
    """(rows, columns, 3) of any float range, clipped to bytes and scaled to the full size."""
    return Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).resize((width, height), resample)


def plain(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), muted(rng))


def gradient(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Four muted corners, blended."""
    base = muted(rng)
    corners = np.array([near(rng, base, 60) if rng.random() < 0.5 else base for _ in range(4)], dtype=np.float32)
    return _small(corners.reshape(2, 2, 3), width, height, Image.Resampling.BICUBIC)


def stripes(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Bands in one of two directions, two near colours."""
    first = muted(rng)
    colours = np.array([first, near(rng, first, 28)], dtype=np.float32)
    count = int(rng.integers(4, 14))
    band = colours[np.arange(count) % 2]
    shape = (1, count, 3) if rng.random() < 0.5 else (count, 1, 3)
    return _small(band.reshape(shape), width, height, Image.Resampling.NEAREST)


def noise(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Smooth clouds: a few random cells, enlarged."""
    cells = int(rng.integers(3, 9))
    light, tint = rng.normal(0, 16, (cells, cells, 1)), rng.normal(0, 3, (cells, cells, 3))
    values = np.array(muted(rng, 0.3, 0.9)) + light + tint
    return _small(values, width, height, Image.Resampling.BICUBIC)


def grain(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Fine film grain on a plain ground."""
    values = np.array(muted(rng, 0.2, 0.9)) + rng.normal(0, rng.uniform(4, 11), (height // 2, width // 2, 1))
    return _small(values, width, height, Image.Resampling.NEAREST)


def horizon(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Sky over ground, both uneven: the plainest photograph."""
    cells = 8
    line = int(rng.integers(3, 7))
    values = np.empty((cells, cells, 3), dtype=np.float32)
    values[:line] = muted(rng, 0.65, 0.95)
    values[line:] = muted(rng, 0.2, 0.6)
    values += rng.normal(0, 7, (cells, cells, 1))
    return _small(values, width, height, Image.Resampling.BILINEAR)


def checks(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    first = muted(rng)
    colours = np.array([first, near(rng, first, 24)], dtype=np.float32)
    count = int(rng.integers(4, 11))
    board = colours[(np.arange(count)[:, None] + np.arange(count)) % 2]
    return _small(board, width, height, Image.Resampling.NEAREST)


def fabric(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Woven threads: brightness of rows plus brightness of columns."""
    threads = int(rng.integers(16, 40))
    rows, columns = rng.normal(0, 9, (threads, 1, 1)), rng.normal(0, 9, (1, threads, 1))
    return _small(np.array(muted(rng, 0.25, 0.9)) + rows + columns, width, height, Image.Resampling.BILINEAR)


def wood(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Long veins in boards, in grey and pale browns."""
    base = np.array(colorsys.hsv_to_rgb(rng.uniform(0.05, 0.11), rng.uniform(0.1, 0.3), rng.uniform(0.55, 0.9))) * 255
    veins = rng.normal(0, 10, (28, 1, 1)) + rng.normal(0, 4, (28, 5, 1))
    boards = np.repeat(rng.normal(0, 9, (4, 1, 1)), 7, axis=0)
    picture = _small(base + veins + boards, width, height, Image.Resampling.BICUBIC)
    return picture if rng.random() < 0.5 else picture.transpose(Image.Transpose.ROTATE_90).resize((width, height))


def dots(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """A regular grid of dots, low contrast."""
    ground = muted(rng)
    picture = Image.new("RGB", (width, height), ground)
    draw, ink = ImageDraw.Draw(picture), near(rng, ground, 24)
    step = int(rng.integers(max(8, width // 14), max(10, width // 6)))
    radius = step // 4
    for y in range(step // 2, height, step):
        for x in range(step // 2, width, step):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=ink)
    return picture


def bokeh(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Soft discs of light out of focus, drawn small and enlarged."""
    ground = muted(rng, 0.2, 0.7)
    picture = Image.new("RGB", (48, 48), ground)
    draw = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(6, 15))):
        x, y, radius = rng.uniform(0, 48), rng.uniform(0, 48), rng.uniform(2, 7)
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=near(rng, ground, 36))
    return picture.resize((width, height), Image.Resampling.BICUBIC)


def hills(rng: np.random.Generator, width: int, height: int) -> Image.Image:
    """Three waves of ground, each darker, under a pale sky."""
    picture = Image.new("RGB", (80, 80), muted(rng, 0.75, 0.95))
    draw, x = ImageDraw.Draw(picture), np.arange(0, 81, 4)
    for layer in range(3):
        top = 34 + 14 * layer + 7 * np.sin(x / rng.uniform(7, 16) + rng.uniform(0, 6))
        outline = [(0, 80), *zip(x.tolist(), top.tolist(), strict=True), (80, 80)]
        draw.polygon(outline, fill=muted(rng, 0.6 - 0.15 * layer, 0.7 - 0.15 * layer))
    return picture.resize((width, height), Image.Resampling.BICUBIC)


# `plain` belongs to all: flat grounds are what screenshots and drawings have, and there is nothing in them to memorise.
KINDS: dict[Split, tuple[Background, ...]] = {
    "train": (plain, gradient, stripes, noise, grain, horizon),
    "validation": (plain, checks, fabric),
    "test": (plain, wood, dots, bokeh, hills),
}


def background(rng: np.random.Generator, width: int, height: int, split: Split) -> Image.Image:
    """An RGB picture of width x height pixels (8 or more each) of one of the split's kinds.

    Raises:
        SynthError: an unknown split, or a side below 8 pixels.
    """
    if split not in KINDS:
        raise SynthError(f"split={split!r} is unknown; use one of {', '.join(KINDS)}.")
    if min(width, height) < 8:
        raise SynthError(f"a background of {width} x {height} pixels is too small; each side must be 8 or more.")
    kinds = KINDS[split]
    return kinds[int(rng.integers(len(kinds)))](rng, width, height)
