"""Pictures of coloured shapes and everyday objects: what they are, where, how many, in which colour."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from smolvlm.synth.backgrounds import background
from smolvlm.synth.finish import finish
from smolvlm.synth.items import Item, make_item, paste
from smolvlm.synth.layout import MAX_ZONE_SIZE, Point, frame_size, point_in, zones
from smolvlm.synth.questions import (
    caption_question,
    colour_questions,
    count_colour_question,
    count_question,
    object_questions,
    position_questions,
    presence_questions,
    spatial_questions,
)
from smolvlm.synth.sample import FrameTruth, ItemTruth, Question, Sample, Split
from smolvlm.synth.world import World

_MIN_SIZE = 0.2  # of the side: 32 of 160 pixels
_COUNT_A_SINGLE = 0.3  # how often a thing beside the repeated one is counted: its number is mostly one


def draw_scene(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """One to six things in nine zones, with questions on all of them; half of the pictures repeat one thing."""
    placed = _repeated(rng, world) if rng.random() < 0.5 else _different(rng, world)
    canvas = background(rng, *frame_size(rng, world), split)
    draw_items(canvas, placed)
    items = truths(placed, canvas.size)
    return Sample("image", (finish(rng, canvas),), _questions(rng, world, items), truths=(FrameTruth(items),))


def draw_counts(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """A scene that repeats one thing, and counting alone: what training learns slowest deserves pictures of its own."""
    placed = _repeated(rng, world)
    canvas = background(rng, *frame_size(rng, world), split)
    draw_items(canvas, placed)
    items = truths(placed, canvas.size)
    names = [item.name for item in items]
    commonest = max(names, key=names.count)
    found = [count_question(rng, items, commonest)]
    found += [count_question(rng, items, name) for name in sorted(set(names) - {commonest}) if rng.random() < _COUNT_A_SINGLE]
    colours = [item.colour for item in items if item.colour is not None]
    if colours:
        found.append(count_colour_question(rng, items, max(colours, key=colours.count)))
    return Sample("image", (finish(rng, canvas),), tuple(found), truths=(FrameTruth(items),))


def draw_items(canvas: Image.Image, placed: Sequence[tuple[Item, Point]]) -> None:
    for item, centre in placed:
        paste(canvas, item, centre)


def truths(placed: Sequence[tuple[Item, Point]], frame_px: tuple[int, int]) -> tuple[ItemTruth, ...]:
    return tuple(item.truth(centre, frame_px) for item, centre in placed)


def random_size(rng: np.random.Generator) -> float:
    return float(rng.uniform(_MIN_SIZE, MAX_ZONE_SIZE))


def _different(rng: np.random.Generator, world: World) -> list[tuple[Item, Point]]:
    """Things of different names; one that is alone may fill the frame."""
    count = int(rng.choice((1, 2, 3, 4), p=(0.2, 0.25, 0.3, 0.25)))
    if count == 1 and rng.random() < 0.6:
        item = make_item(rng, world, float(rng.uniform(0.35, 0.85)))
        margin = item.size / 2 + 0.01
        return [(item, (float(rng.uniform(margin, 1 - margin)), float(rng.uniform(margin, 1 - margin))))]
    placed: list[tuple[Item, Point]] = []
    for zone in zones(rng, count):
        item = make_item(rng, world, random_size(rng))
        while any(item.name == other.name for other, _ in placed):
            item = make_item(rng, world, item.size)
        placed.append((item, point_in(rng, zone, item.size)))
    return placed


def _repeated(rng: np.random.Generator, world: World) -> list[tuple[Item, Point]]:
    """One to `max_count` things of one name (or, of shapes, one colour), and up to two others."""
    same = int(rng.integers(1, world.max_count + 1))
    others = int(rng.integers(0, min(2, 7 - same) + 1))
    first = make_item(rng, world, random_size(rng))
    by_colour = first.colour is not None and rng.random() < 0.3
    placed: list[tuple[Item, Point]] = []
    for i, zone in enumerate(zones(rng, same + others)):
        size = random_size(rng)
        if i < same and by_colour:
            item = make_item(rng, world, size, name=str(rng.choice(world.shapes)), colour=first.colour)
        elif i < same:
            item = make_item(rng, world, size, name=first.name)
        else:
            item = make_item(rng, world, size)
            while item.name == first.name or (by_colour and item.colour == first.colour):
                item = make_item(rng, world, size)
        placed.append((item, point_in(rng, zone, item.size)))
    return placed


def _questions(rng: np.random.Generator, world: World, items: tuple[ItemTruth, ...]) -> tuple[Question, ...]:
    found: list[Question] = []
    if len(items) <= 4:
        found.append(caption_question(rng, items))
    found += colour_questions(rng, items)
    found += position_questions(rng, items)
    found += object_questions(rng, items)
    found += presence_questions(rng, world, items, 2)
    found += spatial_questions(rng, items, 2)
    names = [item.name for item in items]
    commonest = max(names, key=names.count)
    if names.count(commonest) > 1 or rng.random() < 0.1:  # or half of all counts were one
        found.append(count_question(rng, items, commonest))
    colours = [item.colour for item in items if item.colour is not None]
    if colours:
        common = max(colours, key=colours.count)
        if colours.count(common) > 1 or rng.random() < 0.15:
            found.append(count_colour_question(rng, items, common))
    order = rng.permutation(len(found))
    return tuple(found[int(i)] for i in order)
