"""Questions about the things of one frame, with exact answers, worded in several ways.

Yes/no questions are balanced, and counts are balanced by the scenes that are drawn: a model that always says the
commonest answer gets a constant's score.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from smolvlm.synth.layout import place_name
from smolvlm.synth.sample import ItemTruth, Question
from smolvlm.synth.words import at_place, listed, plural, with_article
from smolvlm.synth.world import World

_CAPTION = (
    "Describe this in detail.",
    "Describe this picture.",
    "What is in this picture?",
    "What do you see?",
    "Describe the image.",
    "What does the picture show?",
    "Can you describe this image?",
)
_COLOUR = ("What colour is the {}?", "Which colour is the {}?", "What is the colour of the {}?", "What color is the {}?")
_PLACE = ("Where is the {}?", "In which part of the picture is the {}?", "Where can you see the {}?")
_NAME = ("What is {}?", "Which thing is {}?", "What do you see {}?")
_NAME_ONE = ("What is this?", "What is shown here?", "Name the object.", "What thing is this?")
_PRESENCE = ("Is there {} in the picture?", "Is there {}?", "Can you see {}?", "Does the picture show {}?")
_COUNT = ("How many {} are there?", "How many {} are in the picture?", "Count the {}.", "How many {} do you see?")


def phrased(rng: np.random.Generator, forms: Sequence[str], *parts: str) -> str:
    """One of the wordings, filled in."""
    return str(rng.choice(forms)).format(*parts)


def in_reading_order(items: Sequence[ItemTruth]) -> list[ItemTruth]:
    """By row of zones, then by column."""
    return sorted(items, key=lambda item: (int(item.centre[1] * 3), int(item.centre[0] * 3)))


def caption(items: Sequence[ItemTruth]) -> str:
    """As in "a red star at the top left, a dog in the centre and a cup on the right": every thing with its place."""
    return listed([f"{with_article(item.phrase)} {at_place(place_name(item.centre))}" for item in in_reading_order(items)])


def caption_question(rng: np.random.Generator, items: Sequence[ItemTruth]) -> Question:
    return Question("caption", phrased(rng, _CAPTION), caption(items))


def colour_questions(rng: np.random.Generator, items: Sequence[ItemTruth]) -> list[Question]:
    """For each shape that occurs once."""
    return [Question("colour", phrased(rng, _COLOUR, item.name), item.colour) for item in _unique(items) if item.colour is not None]


def position_questions(rng: np.random.Generator, items: Sequence[ItemTruth]) -> list[Question]:
    """Where each thing is that occurs once, as one of nine places."""
    return [Question("position", phrased(rng, _PLACE, _called(rng, item)), place_name(item.centre)) for item in _unique(items)]


def object_questions(rng: np.random.Generator, items: Sequence[ItemTruth]) -> list[Question]:
    """What is at a place; of a thing that is alone, what it is."""
    if len(items) == 1:
        return [Question("object", phrased(rng, _NAME_ONE), with_article(items[0].phrase))]
    places = Counter(place_name(item.centre) for item in items)
    return [
        Question("object", phrased(rng, _NAME, at_place(place)), with_article(item.phrase))
        for item in items
        if places[place := place_name(item.centre)] == 1
    ]


def presence_questions(rng: np.random.Generator, world: World, items: Sequence[ItemTruth], count: int) -> list[Question]:
    """Half yes, half no; a "no" about a shape that is there in another colour is the hard half."""
    found = []
    for _ in range(count):
        if rng.random() < 0.5:
            phrase, answer = _called(rng, items[int(rng.integers(len(items)))]), "yes"
        else:
            phrase, answer = _absent(rng, world, items), "no"
        found.append(Question("presence", phrased(rng, _PRESENCE, with_article(phrase)), answer))
    return found


def count_question(rng: np.random.Generator, items: Sequence[ItemTruth], name: str) -> Question:
    """How many things of one name there are."""
    number = sum(item.name == name for item in items)
    return Question("count", phrased(rng, _COUNT, plural(name)), str(number))


def count_colour_question(rng: np.random.Generator, items: Sequence[ItemTruth], colour: str) -> Question:
    """How many shapes of one colour there are."""
    number = sum(item.colour == colour for item in items)
    return Question("count", phrased(rng, _COUNT, f"{colour} shapes"), str(number))


def spatial_questions(rng: np.random.Generator, items: Sequence[ItemTruth], count: int) -> list[Question]:
    """Left or right, above or below, of pairs that lie in different columns or rows of zones."""
    unique = _unique(items)
    found = []
    for _ in range(count if len(unique) > 1 else 0):
        first, second = (unique[int(i)] for i in rng.permutation(len(unique))[:2])
        across = bool(rng.random() < 0.5)
        axis = 0 if across else 1
        a, b = first.centre[axis], second.centre[axis]
        if int(a * 3) == int(b * 3):
            continue
        words = ("left", "right") if across else ("above", "below")
        form = "Is the {} left or right of the {}?" if across else "Is the {} above or below the {}?"
        text = form.format(_called(rng, first), _called(rng, second))
        found.append(Question("spatial", text, words[0] if a < b else words[1]))
    return found


def _unique(items: Sequence[ItemTruth]) -> list[ItemTruth]:
    names = Counter(item.name for item in items)
    return [item for item in items if names[item.name] == 1]


def _called(rng: np.random.Generator, item: ItemTruth) -> str:
    """A shape is called by its colour half of the time."""
    return item.phrase if rng.random() < 0.5 else item.name


def _absent(rng: np.random.Generator, world: World, items: Sequence[ItemTruth]) -> str:
    """A thing that is not there."""
    coloured = [item for item in items if item.colour is not None]
    phrases = {item.phrase for item in items}
    if coloured and rng.random() < 0.5:
        item = coloured[int(rng.integers(len(coloured)))]
        others = [f"{c} {item.name}" for c in world.colours if f"{c} {item.name}" not in phrases]
        return str(rng.choice(others))
    names = {item.name for item in items}
    return str(rng.choice([n for n in (*world.objects, *world.shapes) if n not in names]))
