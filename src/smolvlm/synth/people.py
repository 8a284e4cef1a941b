"""Plain figures of people, drawn from a few shapes: standing, bending down, lying on the floor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from PIL import Image, ImageDraw

from smolvlm.synth.palette import shade

Pose: TypeAlias = Literal["standing", "bending", "lying"]
RGB: TypeAlias = tuple[int, int, int]
_OVERSAMPLE = 3
_SKINS: tuple[RGB, ...] = ((245, 208, 178), (224, 172, 128), (190, 132, 88), (141, 92, 60), (96, 62, 42))
_HAIRS: tuple[RGB, ...] = ((28, 22, 20), (86, 54, 32), (150, 98, 48), (206, 168, 92), (150, 150, 155), (150, 52, 30))
_CLOTHES = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "white")


@dataclass(frozen=True)
class Look:
    """What tells one person from another. `height` is the standing height in fractions of the picture's side."""

    height: float
    skin: RGB
    hair: RGB
    shirt: RGB
    trousers: RGB
    long_hair: bool
    faces_right: bool


def random_look(rng: np.random.Generator) -> Look:
    """A random person; shirt and trousers have different colours."""
    upper, lower = (str(_CLOTHES[int(i)]) for i in rng.permutation(len(_CLOTHES))[:2])
    return Look(
        height=float(rng.uniform(0.40, 0.5)),
        skin=_SKINS[int(rng.integers(len(_SKINS)))],
        hair=_HAIRS[int(rng.integers(len(_HAIRS)))],
        shirt=shade(rng, upper),
        trousers=shade(rng, lower),
        long_hair=bool(rng.random() < 0.5),
        faces_right=bool(rng.random() < 0.5),
    )


def figure(look: Look, pose: Pose, side_px: int) -> Image.Image:
    """An RGBA picture, cropped tight, of the person in a room picture of `side_px`."""
    unit = look.height * side_px * _OVERSAMPLE  # the standing height in pixels of the canvas
    canvas = Image.new("RGBA", (round(1.3 * unit), round(1.1 * unit)), (0, 0, 0, 0))
    draw = ImageDraw.Draw(canvas)
    if pose == "bending":
        _bending(draw, look, unit)
    else:
        _standing(draw, look, unit)
    if not look.faces_right:
        canvas = canvas.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if pose == "lying":
        canvas = canvas.transpose(Image.Transpose.ROTATE_90 if look.faces_right else Image.Transpose.ROTATE_270)
    small = canvas.reduce(_OVERSAMPLE)
    box = small.getchannel("A").point(lambda alpha: 255 if alpha > 100 else 0).getbbox()
    assert box is not None, "a figure has pixels"
    return small.crop(box)


def _standing(draw: ImageDraw.ImageDraw, look: Look, unit: float) -> None:
    """Head, trunk, arms, legs upright around x = 0.65 units; the feet end at y = 1.05."""
    x = 0.65
    leg = max(2, round(0.085 * unit))
    for dx in (-0.06, 0.06):
        _limb(draw, unit, [(x + dx * 0.7, 0.58), (x + dx, 1.0)], look.trousers, leg)
        _block(draw, unit, (x + dx - 0.05, 0.98, x + dx + 0.08, 1.05), (40, 34, 34))
    for dx in (-1, 1):
        _limb(draw, unit, [(x + dx * 0.11, 0.34), (x + dx * 0.16, 0.60)], look.shirt, max(2, round(0.06 * unit)))
        _disc(draw, unit, (x + dx * 0.165, 0.62), 0.035, look.skin)
    _block(draw, unit, (x - 0.12, 0.29, x + 0.12, 0.62), look.shirt, radius=0.05)
    _head(draw, look, unit, (x, 0.17))


def _bending(draw: ImageDraw.ImageDraw, look: Look, unit: float) -> None:
    """Upright legs, the trunk forward and down, an arm to the floor."""
    x = 0.45
    leg = max(2, round(0.09 * unit))
    for dx in (-0.05, 0.05):
        _limb(draw, unit, [(x + dx * 0.6, 0.60), (x + dx, 1.0)], look.trousers, leg)
        _block(draw, unit, (x + dx - 0.05, 0.98, x + dx + 0.08, 1.05), (40, 34, 34))
    _limb(draw, unit, [(x, 0.58), (x + 0.28, 0.62)], look.shirt, round(0.21 * unit))
    _disc(draw, unit, (x, 0.575), 0.10, look.trousers)
    _limb(draw, unit, [(x + 0.27, 0.66), (x + 0.33, 0.93)], look.shirt, max(2, round(0.06 * unit)))
    _disc(draw, unit, (x + 0.335, 0.95), 0.035, look.skin)
    _head(draw, look, unit, (x + 0.46, 0.68))


def _head(draw: ImageDraw.ImageDraw, look: Look, unit: float, centre: tuple[float, float]) -> None:
    x, y = centre
    if look.long_hair:
        _block(draw, unit, (x - 0.105, y - 0.02, x + 0.07, y + 0.15), look.hair, radius=0.04)
    _disc(draw, unit, (x - 0.012, y - 0.018), 0.108, look.hair)
    _disc(draw, unit, (x + 0.018, y + 0.022), 0.088, look.skin)
    _disc(draw, unit, (x + 0.055, y + 0.01), 0.014, (30, 26, 26))


def _limb(draw: ImageDraw.ImageDraw, unit: float, points: list[tuple[float, float]], colour: RGB, width: int) -> None:
    draw.line([(x * unit, y * unit) for x, y in points], fill=(*colour, 255), width=width)


def _block(draw: ImageDraw.ImageDraw, unit: float, box: tuple[float, float, float, float], colour: RGB, radius: float = 0.02) -> None:
    corners = (box[0] * unit, box[1] * unit, box[2] * unit, box[3] * unit)
    draw.rounded_rectangle(corners, radius=radius * unit, fill=(*colour, 255))


def _disc(draw: ImageDraw.ImageDraw, unit: float, centre: tuple[float, float], radius: float, colour: RGB) -> None:
    x, y, r = centre[0] * unit, centre[1] * unit, radius * unit
    draw.ellipse((x - r, y - r, x + r, y + r), fill=(*colour, 255))
