"""How a metal part looks: its outline with holes, brushed metal, a rim of light, and the defects drawn into it.

Geometry is in the part's own units: the origin is its middle, its radius is 1, y points down, before turning.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

Point = tuple[float, float]
_OVERSAMPLE = 3
DEFECTS = ("scratch", "dent", "missing hole", "crack")


@dataclass(frozen=True)
class Outline:
    """A polygon, and the round holes (x, y, radius) that a sound part has."""

    corners: tuple[Point, ...]
    holes: tuple[tuple[float, float, float], ...]


@dataclass(frozen=True)
class Defect:
    """`points` and `reach` (radius of what is drawn around them) in the part's units; `hole` is the missing hole's number.

    `box` (x0, y0, x1, y1), in fractions of the picture, holds every pixel that the defect changes.
    """

    kind: str
    points: tuple[Point, ...]
    reach: float
    hole: int
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class Part:
    """A part before it is drawn. `size` (diameter) and `centre` are in fractions of the picture; `grain_seed` is its
    brushed texture."""

    kind: str
    centre: Point
    size: float
    turn_deg: float
    metal: tuple[int, int, int]
    grain_seed: int
    defect: Defect | None = None

    def place(self, point: Point) -> Point:
        """Where a point of the part lies in the picture, in fractions."""
        cos, sin = math.cos(math.radians(self.turn_deg)), math.sin(math.radians(self.turn_deg))
        x, y = point
        radius = self.size / 2
        return self.centre[0] + radius * (x * cos - y * sin), self.centre[1] + radius * (x * sin + y * cos)


def _round(radius: float, count: int = 48) -> tuple[Point, ...]:
    return tuple((radius * math.cos(2 * math.pi * i / count), radius * math.sin(2 * math.pi * i / count)) for i in range(count))


def _teeth(count: int) -> tuple[Point, ...]:
    corners = []
    for i in range(count):
        for share, radius in ((0.0, 0.74), (0.18, 0.97), (0.5, 0.97), (0.68, 0.74)):
            angle = 2 * math.pi * (i + share) / count
            corners.append((radius * math.cos(angle), radius * math.sin(angle)))
    return tuple(corners)


def _ring_of_holes(count: int, distance: float, radius: float) -> tuple[tuple[float, float, float], ...]:
    angles = [2 * math.pi * i / count for i in range(count)]
    return tuple((distance * math.cos(angle), distance * math.sin(angle), radius) for angle in angles)


OUTLINES: dict[str, Outline] = {
    "washer": Outline(_round(0.92), ((0.0, 0.0, 0.36),)),
    "nut": Outline(_round(0.96, 6), ((0.0, 0.0, 0.40),)),
    "gear": Outline(_teeth(11), ((0.0, 0.0, 0.26),)),
    "plate": Outline(
        ((-0.86, -0.5), (0.86, -0.5), (0.86, 0.5), (-0.86, 0.5)),
        ((-0.64, -0.28, 0.13), (0.64, -0.28, 0.13), (0.64, 0.28, 0.13), (-0.64, 0.28, 0.13)),
    ),
    "bracket": Outline(
        ((-0.72, -0.72), (-0.2, -0.72), (-0.2, 0.2), (0.72, 0.2), (0.72, 0.72), (-0.72, 0.72)),
        ((-0.46, -0.46, 0.13), (-0.46, 0.46, 0.13), (0.46, 0.46, 0.13)),
    ),
    "flange": Outline(_round(0.95), _ring_of_holes(6, 0.68, 0.12)),
}


def body_mask(part: Part, margin: float = 0.0) -> npt.NDArray[np.bool_]:
    """Where there is metal, bool (96, 96) over the part's square from -1 to 1, unturned, at least `margin` off any edge.

    Holes count as holes also where the part lacks one: no scratch may hide a missing hole.
    """
    side = 96
    picture = Image.new("L", (side, side))
    draw = ImageDraw.Draw(picture)
    outline = OUTLINES[part.kind]
    draw.polygon([((x + 1) / 2 * side, (y + 1) / 2 * side) for x, y in outline.corners], fill=255)
    for x, y, radius in outline.holes:
        draw.ellipse(_ellipse(((x + 1) / 2 * side, (y + 1) / 2 * side), radius / 2 * side), fill=0)
    if shrink := round(margin / 2 * side):  # a filter of one pixel ends the process in Pillow 12.3
        picture = picture.filter(ImageFilter.MinFilter(2 * shrink + 1))
    return np.asarray(picture) > 127


def render_part(part: Part, ground: npt.NDArray[np.float32]) -> Image.Image:
    """`part` on `ground` (side, side, 3 float32): an RGB picture. Deterministic: the same part is the same picture."""
    side = ground.shape[0]
    mask = _mask(part, side)
    inner = mask.filter(ImageFilter.MinFilter(3))
    shift = max(1, side // 50)
    shadow = Image.new("L", (side, side))
    shadow.paste(mask, (shift, shift))
    alpha = np.asarray(shadow, dtype=np.float32)[..., None] / 255
    pixels = ground * (1 - 0.55 * alpha)
    metal = _metal(part, side)
    rim, face = (np.asarray(m, dtype=np.float32)[..., None] / 255 for m in (mask, inner))
    pixels = pixels * (1 - rim) + metal * 0.62 * rim
    pixels = pixels * (1 - face) + metal * face
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    return picture if part.defect is None else _draw_defect(picture, part, part.defect)


def _mask(part: Part, side: int) -> Image.Image:
    """An "L" picture (side, side): 255 where there is metal, smooth at the edges."""
    big = side * _OVERSAMPLE
    mask = Image.new("L", (big, big))
    draw = ImageDraw.Draw(mask)
    outline = OUTLINES[part.kind]
    draw.polygon([(x * big, y * big) for x, y in map(part.place, outline.corners)], fill=255)
    missing = part.defect.hole if part.defect is not None else -1
    for index, (x, y, radius) in enumerate(outline.holes):
        if index != missing:
            px, py = part.place((x, y))
            draw.ellipse(_ellipse((px * big, py * big), radius * part.size / 2 * big), fill=0)
    return mask.reduce(_OVERSAMPLE)


def _metal(part: Part, side: int) -> npt.NDArray[np.float32]:
    """Brushed metal (side, side, 3): fine lines in one direction under a slope of light."""
    rng = np.random.default_rng(part.grain_seed)
    lines = rng.normal(0, 5, side).astype(np.float32)
    slope = np.linspace(1.1, 0.9, side, dtype=np.float32)
    grain = lines[None, :, None] if part.grain_seed % 2 else lines[:, None, None]
    light = slope[:, None, None] * slope[None, :, None]
    return np.array(part.metal, dtype=np.float32) * light + grain


def _draw_defect(picture: Image.Image, part: Part, defect: Defect) -> Image.Image:
    if defect.kind == "missing hole":
        return picture  # already drawn: the mask has no hole there
    side = picture.width
    big = side * _OVERSAMPLE
    points = [(x * big, y * big) for x, y in map(part.place, defect.points)]
    dark, light = Image.new("L", (big, big)), Image.new("L", (big, big))
    radius = defect.reach * part.size / 2 * big
    if defect.kind == "dent":
        # A hollow lit from the top left: its near wall lies in shadow, its far wall shines. Two crescents.
        (x, y), off = points[0], radius * 0.22
        for layer, sign in ((dark, 1), (light, -1)):
            ImageDraw.Draw(layer).ellipse(_ellipse((x, y), radius * 0.9), fill=215)
            ImageDraw.Draw(layer).ellipse(_ellipse((x + sign * off, y + sign * off), radius * 0.8), fill=50 if sign > 0 else 0)
        blur = ImageFilter.GaussianBlur(radius * 0.06)
        dark, light = dark.filter(blur), light.filter(blur)
    elif defect.kind == "scratch":
        width = max(2, round(0.03 * part.size * big / 2))
        ImageDraw.Draw(dark).line(points, fill=230, width=width)
        ImageDraw.Draw(light).line([(x + width, y + width * 0.5) for x, y in points], fill=230, width=max(1, width))
    else:
        ImageDraw.Draw(dark).line(points, fill=255, width=max(3, round(0.05 * part.size * big / 2)), joint="curve")
    picture = picture.copy()
    picture.paste((25, 25, 28), (0, 0), dark.reduce(_OVERSAMPLE))
    picture.paste((250, 250, 250), (0, 0), light.reduce(_OVERSAMPLE))
    return picture


def _ellipse(centre: Point, radius: float) -> tuple[float, float, float, float]:
    return centre[0] - radius, centre[1] - radius, centre[0] + radius, centre[1] + radius
