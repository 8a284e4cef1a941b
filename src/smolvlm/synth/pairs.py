"""Two pictures of one scene in which at most one thing differs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from smolvlm.synth.backgrounds import background
from smolvlm.synth.finish import Camera
from smolvlm.synth.items import Item, make_item
from smolvlm.synth.layout import Point, frame_size, place_name, point_in, zones
from smolvlm.synth.palette import shade
from smolvlm.synth.questions import phrased
from smolvlm.synth.sample import FrameTruth, Question, Sample, Split
from smolvlm.synth.scenes import draw_items, random_size, truths
from smolvlm.synth.words import at_place, with_article
from smolvlm.synth.world import World

CHANGES = ("added", "removed", "colour", "moved", "nothing")
_WHAT = ("What is different in the second picture?", "What has changed?", "What changed between the pictures?", "Compare the two pictures.")


def draw_pair(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """Two to four things, of which one is added, removed, recoloured or moved in the second picture, or none."""
    change = str(rng.choice(CHANGES))
    count = int(rng.integers(2, 5))
    places = zones(rng, count + 1)
    before: list[tuple[Item, Point]] = []
    for zone in places[:count]:
        item = make_item(rng, world, random_size(rng), shape_share=0.5)
        while any(item.name == other.name for other, _ in before):
            item = make_item(rng, world, item.size)
        before.append((item, point_in(rng, zone, item.size)))
    if change == "colour" and before[0][0].colour is None:
        name = str(rng.choice([s for s in world.shapes if all(s != item.name for item, _ in before)]))
        before[0] = (make_item(rng, world, before[0][0].size, name=name), before[0][1])
    after, answer = _changed(rng, world, change, before, places[count])
    ground = background(rng, *frame_size(rng, world), split)
    camera = Camera(rng)
    frames = []
    for placed in (before, after):
        canvas = ground.copy()
        draw_items(canvas, placed)
        frames.append(camera.shoot(canvas))
    questions = [
        Question("compare", phrased(rng, _WHAT), answer),
        Question("same", "Are the two pictures the same?", "yes" if change == "nothing" else "no"),
    ]
    # "Yes" is right for one pair in five: the yes/no question is asked of one changed pair in four, to balance it.
    keep = 2 if change == "nothing" or rng.random() < 0.25 else 1
    return Sample(
        "images",
        tuple(frames),
        tuple(questions[:keep]),
        truths=(FrameTruth(truths(before, ground.size)), FrameTruth(truths(after, ground.size))),
    )


def _changed(
    rng: np.random.Generator, world: World, change: str, before: list[tuple[Item, Point]], free: tuple[int, int]
) -> tuple[list[tuple[Item, Point]], str]:
    """The second picture's things and what to say of the change, which is always to the first thing."""
    item, place = before[0]
    if change == "added":
        added = make_item(rng, world, random_size(rng))
        while any(added.name == other.name for other, _ in before):
            added = make_item(rng, world, added.size)
        return [*before, (added, point_in(rng, free, added.size))], f"there is now {with_article(added.phrase)}"
    if change == "removed":
        return before[1:], f"the {item.phrase} is gone"
    if change == "colour":
        colour = str(rng.choice([c for c in world.colours if c != item.colour]))
        return [(replace(item, colour=colour, rgb=shade(rng, colour)), place), *before[1:]], f"the {item.phrase} is now {colour}"
    if change == "moved":
        there = point_in(rng, free, item.size)
        return [(item, there), *before[1:]], f"the {item.phrase} is now {at_place(place_name(there))}"
    return before, "nothing"
