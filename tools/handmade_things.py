"""What the hand-made set shows: eight shapes as outlines, and six everyday things as a child would draw them.

Shapes are given to the painters as corners; the things are Matplotlib's patches. Coordinates: 0 to 1, y downward.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import matplotlib.patches as mp
import numpy as np
from matplotlib.axes import Axes

RGB = {
    "red": (214, 30, 30),
    "orange": (250, 136, 20),
    "yellow": (248, 218, 40),
    "green": (30, 140, 60),
    "blue": (40, 80, 210),
    "purple": (112, 40, 160),
    "pink": (250, 150, 190),
    "brown": (112, 66, 34),
    "black": (16, 16, 18),
    "white": (248, 248, 246),
}
SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")
PLACES = (("top left", "top", "top right"), ("left", "centre", "right"), ("bottom left", "bottom", "bottom right"))


@dataclass(frozen=True)
class Thing:
    """A shape; centre and size (its diameter) in fractions of the side."""

    name: str
    colour: str
    x: float
    y: float
    size: float
    angle_deg: float = 0.0

    @property
    def phrase(self) -> str:
        return f"{self.colour} {self.name}"

    @property
    def place(self) -> str:
        return PLACES[int(self.y * 3)][int(self.x * 3)]


def star(inner: float) -> np.ndarray:
    turns = np.arange(10) * math.pi / 5
    radii = np.where(np.arange(10) % 2, inner, 1.0)
    return np.stack([radii * np.sin(turns), -radii * np.cos(turns)], 1)


def outline(name: str, inner: float = 0.44) -> np.ndarray:
    """Corners in the square from -1 to 1, y downward, for those who draw polygons only."""
    t = np.linspace(0, 2 * math.pi, 120)
    if name in ("circle", "ring"):
        return np.stack([np.cos(t), np.sin(t)], 1)
    if name == "heart":  # a cardioid with a dent, not the curve that training draws
        return np.stack([np.sin(t) ** 3, -(0.86 * np.cos(t) - 0.34 * np.cos(2 * t) - 0.13 * np.cos(3 * t))], 1)
    if name == "star":
        return star(inner)
    w = 0.32
    return np.array(
        {
            "square": [(-0.8, -0.8), (0.8, -0.8), (0.8, 0.8), (-0.8, 0.8)],
            "triangle": [(0, -0.9), (0.95, 0.75), (-0.95, 0.75)],
            "diamond": [(0, -1), (0.7, 0), (0, 1), (-0.7, 0)],
            "cross": [(-w, -1), (w, -1), (w, -w), (1, -w), (1, w), (w, w), (w, 1), (-w, 1), (-w, w), (-1, w), (-1, -w), (-w, -w)],
        }[name],
        float,
    )


def turned(points: np.ndarray, thing: Thing, side: float) -> np.ndarray:
    a = math.radians(thing.angle_deg)
    spun = points @ np.array([[math.cos(a), math.sin(a)], [-math.sin(a), math.cos(a)]])
    return (spun * thing.size / 2 + (thing.x, thing.y)) * side


def house(a: Axes) -> None:
    a.add_patch(mp.Rectangle((0.27, 0.45), 0.46, 0.36, fc="#e8d3a0", ec="#7a6a48"))
    a.add_patch(mp.Polygon([(0.2, 0.46), (0.5, 0.18), (0.8, 0.46)], fc="#b5402c", ec="#6d2418"))
    a.add_patch(mp.Rectangle((0.54, 0.58), 0.12, 0.23, fc="#6b4a2f"))
    a.add_patch(mp.Rectangle((0.33, 0.54), 0.13, 0.12, fc="#a9d3ee", ec="white", lw=2))


def tree(a: Axes) -> None:
    a.add_patch(mp.Rectangle((0.45, 0.58), 0.1, 0.27, fc="#6b4a2f"))
    for x, y, r in ((0.5, 0.33, 0.2), (0.37, 0.45, 0.15), (0.63, 0.45, 0.15), (0.5, 0.48, 0.17)):
        a.add_patch(mp.Circle((x, y), r, fc="#3f8f3a"))


def flower(a: Axes) -> None:
    a.plot([0.5, 0.5], [0.45, 0.88], color="#3f8f3a", lw=5)
    a.add_patch(mp.Ellipse((0.6, 0.7), 0.2, 0.08, angle=-30, fc="#3f8f3a"))
    for k in range(6):
        x, y = 0.5 + 0.15 * math.cos(k * math.pi / 3), 0.36 + 0.15 * math.sin(k * math.pi / 3)
        a.add_patch(mp.Circle((x, y), 0.1, fc="#f291b7", ec="#d5648f"))
    a.add_patch(mp.Circle((0.5, 0.36), 0.09, fc="#f7d038"))


def clock(a: Axes) -> None:
    a.add_patch(mp.Circle((0.5, 0.5), 0.33, fc="white", ec="#333333", lw=7))
    for k in range(12):
        x, y = math.sin(k * math.pi / 6), -math.cos(k * math.pi / 6)
        a.plot([0.5 + 0.25 * x, 0.5 + 0.29 * x], [0.5 + 0.25 * y, 0.5 + 0.29 * y], color="#333333", lw=2)
    a.plot([0.5, 0.5, 0.63], [0.28, 0.5, 0.58], color="#222222", lw=4)


def car(a: Axes) -> None:
    a.add_patch(mp.Polygon([(0.3, 0.48), (0.38, 0.33), (0.63, 0.33), (0.74, 0.48)], fc="#c9302c"))
    a.add_patch(mp.Polygon([(0.37, 0.47), (0.41, 0.37), (0.51, 0.37), (0.51, 0.47)], fc="#bfe3f5"))
    a.add_patch(mp.Polygon([(0.54, 0.47), (0.54, 0.37), (0.61, 0.37), (0.67, 0.47)], fc="#bfe3f5"))
    a.add_patch(mp.FancyBboxPatch((0.18, 0.49), 0.64, 0.14, boxstyle="round,pad=0.02", fc="#c9302c"))
    for x in (0.32, 0.68):
        a.add_patch(mp.Circle((x, 0.65), 0.085, fc="#222222"))
        a.add_patch(mp.Circle((x, 0.65), 0.035, fc="#bbbbbb"))


def mushroom(a: Axes) -> None:
    a.add_patch(mp.FancyBboxPatch((0.43, 0.5), 0.14, 0.28, boxstyle="round,pad=0.03", fc="#f1e7d0", ec="#c9b990"))
    a.add_patch(mp.Wedge((0.5, 0.5), 0.32, 180, 360, fc="#cf2a27", ec="#8f1a18"))
    for x, y, r in ((0.36, 0.4, 0.045), (0.52, 0.3, 0.05), (0.65, 0.42, 0.04), (0.48, 0.44, 0.03)):
        a.add_patch(mp.Circle((x, y), r, fc="white"))


THINGS = (house, tree, flower, clock, car, mushroom)
