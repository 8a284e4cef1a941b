"""The eight plain shapes as masks."""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

_OVERSAMPLE = 3  # drawn three times as large and averaged: smooth edges


def shape_mask(name: str, side_px: int, angle_deg: float = 0.0) -> Image.Image:
    """An "L" picture of side_px x side_px, 255 inside the shape. Raises KeyError for an unknown name."""
    side = side_px * _OVERSAMPLE
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    if name in ("circle", "ring"):
        draw.ellipse((0.06 * side, 0.06 * side, 0.94 * side, 0.94 * side), fill=255)
        if name == "ring":
            draw.ellipse((0.28 * side, 0.28 * side, 0.72 * side, 0.72 * side), fill=0)
    else:
        draw.polygon([_turned(x, y, angle_deg, side) for x, y in _OUTLINES[name]], fill=255)
    return mask.reduce(_OVERSAMPLE)


def _turned(x: float, y: float, angle_deg: float, side: int) -> tuple[float, float]:
    cos, sin = math.cos(math.radians(angle_deg)), math.sin(math.radians(angle_deg))
    return (0.5 + (x * cos - y * sin) / 2) * side, (0.5 + (x * sin + y * cos) / 2) * side


def _star() -> list[tuple[float, float]]:
    radii = (0.95, 0.40)
    return [(radii[i % 2] * math.sin(i * math.pi / 5), -radii[i % 2] * math.cos(i * math.pi / 5) + 0.06) for i in range(10)]


def _heart() -> list[tuple[float, float]]:
    points = []
    for i in range(40):
        t = 2 * math.pi * i / 40
        y = 13 * math.cos(t) - 5 * math.cos(2 * t) - 2 * math.cos(3 * t) - math.cos(4 * t)
        points.append((16 * math.sin(t) ** 3 / 18, -(y + 2.5) / 17))
    return points


# Corners in the square from -1 to 1, y downward.
_OUTLINES: dict[str, list[tuple[float, float]]] = {
    "square": [(-0.76, -0.76), (0.76, -0.76), (0.76, 0.76), (-0.76, 0.76)],
    "triangle": [(0.0, -0.85), (0.88, 0.70), (-0.88, 0.70)],
    "diamond": [(0.0, -0.95), (0.62, 0.0), (0.0, 0.95), (-0.62, 0.0)],
    "cross": [
        (-0.3, -0.88),
        (0.3, -0.88),
        (0.3, -0.3),
        (0.88, -0.3),
        (0.88, 0.3),
        (0.3, 0.3),
        (0.3, 0.88),
        (-0.3, 0.88),
        (-0.3, 0.3),
        (-0.88, 0.3),
        (-0.88, -0.3),
        (-0.3, -0.3),
    ],
    "star": _star(),
    "heart": _heart(),
}
