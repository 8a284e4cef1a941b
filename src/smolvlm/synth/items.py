"""Things that a scene is made of: what they are, how they look, and how they come onto the canvas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageEnhance

from smolvlm.synth.objects import sprite
from smolvlm.synth.palette import luminance, shade
from smolvlm.synth.sample import ItemTruth
from smolvlm.synth.shapes import shape_mask
from smolvlm.synth.world import World


@dataclass(frozen=True)
class Item:
    """A thing with its look, before it has a place. `size` is its larger side in fractions of the frame's shorter side."""

    name: str
    colour: str | None
    rgb: tuple[int, int, int] | None
    size: float
    aspect: float  # width / height
    angle_deg: float
    brightness: float

    @property
    def phrase(self) -> str:
        return self.name if self.colour is None else f"{self.colour} {self.name}"

    def truth(self, centre: tuple[float, float], frame_px: tuple[int, int]) -> ItemTruth:
        """Where it is in a frame of (width, height) pixels, with its centre at fractions (x, y)."""
        width, height = frame_px
        half = self.size * min(frame_px) / 2
        half_width, half_height = half * min(self.aspect, 1) / width, half / max(self.aspect, 1) / height
        x, y = centre
        return ItemTruth(self.name, self.colour, (x - half_width, y - half_height, x + half_width, y + half_height))


def make_item(
    rng: np.random.Generator, world: World, size: float, *, name: str | None = None, colour: str | None = None, shape_share: float = 0.5
) -> Item:
    """A random thing: a coloured shape with probability `shape_share`, else an object; `name` and `colour` fix a choice."""
    if name is None:
        pool: Sequence[str] = world.shapes if rng.random() < shape_share else world.objects
        name = str(rng.choice(pool))
    is_shape = name in world.shapes
    if is_shape and colour is None:
        colour = str(rng.choice(world.colours))
    return Item(
        name=name,
        colour=colour if is_shape else None,
        rgb=shade(rng, colour) if is_shape and colour is not None else None,
        size=size,
        aspect=float(np.exp(rng.uniform(-0.16, 0.16))),
        angle_deg=float(rng.uniform(-14, 14)),
        brightness=float(rng.uniform(0.85, 1.1)),
    )


def paste(canvas: Image.Image, item: Item, centre: tuple[float, float], *, turn_deg: float = 0.0, opacity: float = 1.0) -> None:
    """Draw `item` with its centre at fractions (x, y) of the canvas; a faint outline keeps it apart from what is behind."""
    side = min(canvas.size)
    width = max(4, round(item.size * side * min(item.aspect, 1)))
    height = max(4, round(item.size * side / max(item.aspect, 1)))
    left, top = round(centre[0] * canvas.width - width / 2), round(centre[1] * canvas.height - height / 2)
    if item.rgb is not None:
        mask = shape_mask(item.name, max(width, height), item.angle_deg + turn_deg).resize((width, height))
        if opacity < 1:
            mask = mask.point(lambda v: round(v * opacity))
        _halo(canvas, mask, (left, top), item.rgb)
        canvas.paste(item.rgb, (left, top), mask)
        return
    picture = sprite(item.name).rotate(-item.angle_deg - turn_deg, Image.Resampling.BILINEAR)
    picture = picture.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2.0)
    alpha = picture.getchannel("A")
    if opacity < 1:
        alpha = alpha.point(lambda v: round(v * opacity))
    canvas.paste(ImageEnhance.Brightness(picture.convert("RGB")).enhance(item.brightness), (left, top), alpha)


def _halo(canvas: Image.Image, mask: Image.Image, place: tuple[int, int], rgb: tuple[int, int, int]) -> None:
    """A thin dark or light rim under a shape whose brightness is that of the ground: white on white would be no shape."""
    box = (place[0], place[1], place[0] + mask.width, place[1] + mask.height)
    ground = canvas.crop(box).resize((1, 1), Image.Resampling.BOX).getpixel((0, 0))
    assert isinstance(ground, tuple)
    if abs(luminance((ground[0], ground[1], ground[2])) - luminance(rgb)) > 60:
        return
    rim = (40, 40, 40) if luminance(rgb) > 110 else (225, 225, 225)
    shift = max(1, mask.width // 24)
    for dx, dy in ((-shift, 0), (shift, 0), (0, -shift), (0, shift)):
        canvas.paste(rim, (place[0] + dx, place[1] + dy), mask)
