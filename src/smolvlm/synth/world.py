"""How much of the world is drawn: a small one for a model trained on two CPU cores, a wide one for a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from smolvlm.synth.objects import OBJECTS, SMALL_OBJECTS
from smolvlm.synth.palette import COLOURS

SHAPES = ("circle", "square", "triangle", "star", "heart", "diamond", "cross", "ring")


@dataclass(frozen=True)
class World:
    """What may occur. `side_px` is the longer side of a drawn picture."""

    name: str
    objects: tuple[str, ...]
    side_px: int
    max_count: int  # counting questions ask for 1 to this many
    max_letters: int
    max_digits: int
    shapes: tuple[str, ...] = SHAPES
    colours: tuple[str, ...] = tuple(COLOURS)


SMALL = World("small", SMALL_OBJECTS, side_px=192, max_count=5, max_letters=5, max_digits=3)
WIDE = World("wide", OBJECTS, side_px=224, max_count=6, max_letters=8, max_digits=5)
WORLDS = {world.name: world for world in (SMALL, WIDE)}
