"""Ten colours that have plain names, each a small range of shades."""

from __future__ import annotations

import colorsys

import numpy as np

# name: (hue range in degrees, saturation range, value range). The ranges leave gaps between neighbours, so that nobody
# would argue about the name.
COLOURS: dict[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    "red": ((-6, 5), (0.80, 1.0), (0.75, 0.95)),
    "orange": ((24, 33), (0.85, 1.0), (0.92, 1.0)),
    "yellow": ((50, 58), (0.75, 1.0), (0.92, 1.0)),
    "green": ((105, 140), (0.60, 1.0), (0.45, 0.75)),
    "blue": ((212, 235), (0.70, 1.0), (0.60, 0.95)),
    "purple": ((268, 285), (0.55, 0.90), (0.45, 0.70)),
    "pink": ((325, 342), (0.30, 0.50), (0.95, 1.0)),
    "brown": ((18, 28), (0.60, 0.80), (0.32, 0.48)),
    "black": ((0, 360), (0.0, 0.15), (0.02, 0.12)),
    "white": ((0, 360), (0.0, 0.04), (0.95, 1.0)),
}


def shade(rng: np.random.Generator, name: str) -> tuple[int, int, int]:
    """A shade of a named colour, RGB 0-255."""
    hue, saturation, value = (float(rng.uniform(*bounds)) for bounds in COLOURS[name])
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return round(red * 255), round(green * 255), round(blue * 255)


def luminance(colour: tuple[int, int, int]) -> float:
    """Perceived brightness of an RGB colour, 0-255 (Rec. 601)."""
    return 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
