"""Where things go: nine zones of a frame, each thing well inside its zone, so that nobody would argue about the place."""

from __future__ import annotations

import numpy as np

from smolvlm.synth.words import PLACES
from smolvlm.synth.world import World

MAX_ZONE_SIZE = 0.3  # of the side: as large as a thing may be that shares the frame with others
_MARGIN = 0.075  # of the side, from a zone's border to a thing's centre

Point = tuple[float, float]


def frame_size(rng: np.random.Generator, world: World) -> tuple[int, int]:
    """(width, height) in pixels: two frames in three are square, the others up to 16:9, lying or standing."""
    side = world.side_px
    if rng.random() < 2 / 3:
        return side, side
    short = round(side * float(rng.uniform(9 / 16, 1)))
    return (side, short) if rng.random() < 0.6 else (short, side)


def zones(rng: np.random.Generator, count: int) -> list[tuple[int, int]]:
    """`count` different (row, column) zones in random order."""
    return [(int(n) // 3, int(n) % 3) for n in rng.permutation(9)[:count]]


def point_in(rng: np.random.Generator, zone: tuple[int, int], size: float) -> Point:
    """A centre (x, y) in fractions of the frame for a thing of `size`, inside its zone and inside the frame."""
    return _along(rng, zone[1], size), _along(rng, zone[0], size)


def _along(rng: np.random.Generator, index: int, size: float) -> float:
    low = max(index / 3 + _MARGIN, size / 2 + 0.01)
    high = min((index + 1) / 3 - _MARGIN, 1 - size / 2 - 0.01)
    return float(rng.uniform(low, high)) if low < high else (low + high) / 2


def place_name(point: Point) -> str:
    """As in "top left", "centre", ... of a centre in fractions of the frame."""
    return PLACES[min(int(point[1] * 3), 2)][min(int(point[0] * 3), 2)]
