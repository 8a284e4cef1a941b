"""Clips: one thing moves, falls, appears, disappears or changes colour while others stay, or nothing happens at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from smolvlm.synth.backgrounds import background
from smolvlm.synth.finish import Camera
from smolvlm.synth.items import Item, make_item, paste
from smolvlm.synth.layout import Point, frame_size, point_in, zones
from smolvlm.synth.palette import shade
from smolvlm.synth.questions import phrased
from smolvlm.synth.sample import FrameTruth, Pixels, Question, Sample, Split
from smolvlm.synth.scenes import random_size
from smolvlm.synth.world import World

EVENTS = ("moves", "falls", "appears", "disappears", "changes colour", "two appear", "nothing")
_SHARES = (0.34, 0.12, 0.14, 0.14, 0.06, 0.12, 0.08)
# For training: changes that are rare in the benchmark were hardly learned in its shares (two that appear: none of 18).
EVEN_SHARES = (0.22, 0.1, 0.12, 0.16, 0.13, 0.16, 0.11)
_STEPS = {"left": (-1.0, 0.0), "right": (1.0, 0.0), "up": (0.0, -1.0), "down": (0.0, 1.0)}
_WHAT = ("What happens?", "What happens in the clip?", "What happens in this video?", "Describe this in detail.", "Describe the video.")
_DIRECTION = ("In which direction does the {} move?", "Which way does the {} move?", "Where does the {} go?")
_WHEN = ("When does the {} {}?", "At what time does the {} {}?")
_ACTION = ("What does the {} do?", "What happens to the {}?", "What is the {} doing?")
_FIRST = ("What appears first, the {} or the {}?", "Which comes first, the {} or the {}?")


@dataclass(frozen=True)
class _Actor:
    """A thing and where it is at each moment (None: not in the frame); `turns` and `looks` are by frame too."""

    item: Item
    path: tuple[Point | None, ...]
    turns_deg: tuple[float, ...]
    looks: tuple[Item, ...]


def frame_times(rng: np.random.Generator, count: int | None = None) -> tuple[tuple[float, ...], float]:
    """Frame times and duration in seconds as the sampler takes them: 3 to 6 frames a second apart, a fifth of the clips
    longer and sampled more thinly."""
    count = int(rng.integers(3, 7)) if count is None else count
    step = 1 if rng.random() < 0.8 else int(rng.integers(2, 8))
    return tuple(float(i * step) for i in range(count)), float(count * step)


def clock(seconds: float) -> str:
    """MM:SS, as the prompt writes frame times."""
    return f"{int(seconds // 60):02d}:{int(seconds % 60):02d}"


def draw_clip(
    rng: np.random.Generator, world: World, split: Split, frame_count: int | None = None, shares: Sequence[float] = _SHARES
) -> Sample:
    """A clip of 3 to 6 frames (or `frame_count`) with questions on what happens, where to, when, and what comes first;
    `shares`: how often each of EVENTS."""
    event = str(rng.choice(EVENTS, p=shares))
    times, duration_s = frame_times(rng, frame_count)
    others = int(rng.integers(0, 3))
    places = zones(rng, others + 2)
    actors, questions = _EVENT_MAKERS[event](rng, world, times, places)
    names = {actor.item.name for actor in actors}
    for zone in places[2:]:
        item = make_item(rng, world, random_size(rng))
        while item.name in names:
            item = make_item(rng, world, item.size)
        names.add(item.name)
        actors.append(_still(item, point_in(rng, zone, item.size), len(times)))
    questions += _action_questions(rng, actors)
    frames, truths = _film(rng, world, split, actors, len(times))
    return Sample("video", frames, tuple(questions), times, duration_s, truths)


def _action_questions(rng: np.random.Generator, actors: list[_Actor]) -> list[Question]:
    """What each thing does that does something, and one that does not."""
    still = [actor for actor in actors if _action(actor) == "it stays still"]
    asked = [actor for actor in actors if actor not in still] + still[:1]
    return [Question("action", phrased(rng, _ACTION, _called(rng, actor.item)), _action(actor)) for actor in asked]


def _action(actor: _Actor) -> str:
    """What a thing does, from its path alone."""
    first, last = actor.path[0], actor.path[-1]
    if first is None:
        return "it appears"
    if last is None:
        return "it disappears"
    if any(actor.turns_deg):
        return "it falls"
    if actor.looks[0] != actor.looks[-1]:
        return f"it turns {actor.looks[-1].colour}"
    if first == last:
        return "it stays still"
    dx, dy = last[0] - first[0], last[1] - first[1]
    if abs(dx) > abs(dy):
        return "it moves to the left" if dx < 0 else "it moves to the right"
    return "it moves up" if dy < 0 else "it moves down"


def _film(
    rng: np.random.Generator, world: World, split: Split, actors: list[_Actor], count: int
) -> tuple[tuple[Pixels, ...], tuple[FrameTruth, ...]]:
    ground = background(rng, *frame_size(rng, world), split)
    camera = Camera(rng)
    frames, truths = [], []
    for t in range(count):
        canvas = ground.copy()
        seen = []
        for actor in reversed(actors):  # the one that acts is drawn last: nothing hides it
            place = actor.path[t]
            if place is not None:
                paste(canvas, actor.looks[t], place, turn_deg=actor.turns_deg[t])
                seen.append(actor.looks[t].truth(place, ground.size))
        frames.append(camera.shoot(canvas))
        truths.append(FrameTruth(tuple(seen)))
    return tuple(frames), tuple(truths)


def _still(item: Item, place: Point, count: int) -> _Actor:
    return _Actor(item, (place,) * count, (0.0,) * count, (item,) * count)


def _moves(
    rng: np.random.Generator, world: World, times: tuple[float, ...], _places: list[tuple[int, int]]
) -> tuple[list[_Actor], list[Question]]:
    direction = str(rng.choice(tuple(_STEPS)))
    dx, dy = _STEPS[direction]
    item = make_item(rng, world, random_size(rng))
    margin = item.size / 2 + 0.02
    travel = float(rng.uniform(0.4, 1 - 2 * margin - 0.02))
    along = float(rng.uniform(margin, 1 - margin - travel))
    across = float(rng.uniform(margin, 1 - margin))
    path: list[Point | None] = []
    for done in np.linspace(0, 1, len(times)):
        position = along + travel * float(done if dx + dy > 0 else 1 - done)
        path.append((position, across) if dx else (across, position))
    name = _called(rng, item)
    to = f"to the {direction}" if dx else direction
    questions = [
        Question("event", phrased(rng, _WHAT), f"the {item.phrase} moves {to}"),
        Question("motion", phrased(rng, _DIRECTION, name), direction),
    ]
    count = len(times)
    return [_Actor(item, tuple(path), (0.0,) * count, (item,) * count)], questions


def _falls(
    rng: np.random.Generator, world: World, times: tuple[float, ...], _places: list[tuple[int, int]]
) -> tuple[list[_Actor], list[Question]]:
    """It stands, then drops within one frame and lies turned on the ground."""
    item = make_item(rng, world, float(rng.uniform(0.22, 0.31)), shape_share=0.0)
    at = int(rng.integers(1, len(times)))
    x = float(rng.uniform(0.2, 0.8))
    high, low = float(rng.uniform(0.2, 0.5)), 1 - item.size / 2 - 0.02
    turn = float(rng.choice((-90, 90)))
    path = tuple((x, high) if t < at else (x, low) for t in range(len(times)))
    turns = tuple(0.0 if t < at else turn for t in range(len(times)))
    questions = [
        Question("event", phrased(rng, _WHAT), f"the {item.phrase} falls"),
        Question("when", phrased(rng, _WHEN, _called(rng, item), "fall"), f"at {clock(times[at])}"),
    ]
    return [_Actor(item, path, turns, (item,) * len(times))], questions


def _appears(
    rng: np.random.Generator, world: World, times: tuple[float, ...], places: list[tuple[int, int]]
) -> tuple[list[_Actor], list[Question]]:
    return _shown(rng, world, times, places, comes=True)


def _disappears(
    rng: np.random.Generator, world: World, times: tuple[float, ...], places: list[tuple[int, int]]
) -> tuple[list[_Actor], list[Question]]:
    return _shown(rng, world, times, places, comes=False)


def _shown(
    rng: np.random.Generator, world: World, times: tuple[float, ...], places: list[tuple[int, int]], *, comes: bool
) -> tuple[list[_Actor], list[Question]]:
    item = make_item(rng, world, random_size(rng))
    at = int(rng.integers(1, len(times)))
    place = point_in(rng, places[0], item.size)
    path = tuple(place if (t >= at) == comes else None for t in range(len(times)))
    verb = "appear" if comes else "disappear"
    questions = [
        Question("event", phrased(rng, _WHAT), f"the {item.phrase} {verb}s"),
        Question("when", phrased(rng, _WHEN, _called(rng, item), verb), f"at {clock(times[at])}"),
    ]
    return [_Actor(item, path, (0.0,) * len(times), (item,) * len(times))], questions


def _changes_colour(
    rng: np.random.Generator, world: World, times: tuple[float, ...], places: list[tuple[int, int]]
) -> tuple[list[_Actor], list[Question]]:
    before = make_item(rng, world, random_size(rng), shape_share=1.0)
    colour = str(rng.choice([c for c in world.colours if c != before.colour]))
    after = replace(before, colour=colour, rgb=shade(rng, colour))
    at = int(rng.integers(1, len(times)))
    place = point_in(rng, places[0], before.size)
    looks = tuple(before if t < at else after for t in range(len(times)))
    questions = [Question("event", phrased(rng, _WHAT), f"the {before.phrase} turns {colour}")]
    return [_Actor(before, (place,) * len(times), (0.0,) * len(times), looks)], questions


def _two_appear(
    rng: np.random.Generator, world: World, times: tuple[float, ...], places: list[tuple[int, int]]
) -> tuple[list[_Actor], list[Question]]:
    first = make_item(rng, world, random_size(rng))
    second = make_item(rng, world, random_size(rng))
    while second.name == first.name:
        second = make_item(rng, world, second.size)
    earlier, later = sorted(int(i) for i in rng.permutation(len(times))[:2])
    actors = []
    for item, at, zone in ((first, earlier, places[0]), (second, later, places[1])):
        place = point_in(rng, zone, item.size)
        path = tuple(place if t >= at else None for t in range(len(times)))
        actors.append(_Actor(item, path, (0.0,) * len(times), (item,) * len(times)))
    names = [_called(rng, first), _called(rng, second)]
    asked = names if rng.random() < 0.5 else names[::-1]
    questions = [
        Question("first", phrased(rng, _FIRST, *asked), f"the {names[0]}"),
        Question("event", phrased(rng, _WHAT), f"the {first.phrase} appears, then the {second.phrase} appears")
        if earlier
        else Question("event", phrased(rng, _WHAT), f"the {second.phrase} appears"),
        Question("when", phrased(rng, _WHEN, names[1], "appear"), f"at {clock(times[later])}"),
    ]
    if earlier:
        questions.append(Question("when", phrased(rng, _WHEN, names[0], "appear"), f"at {clock(times[earlier])}"))
    return actors, questions


def _nothing(
    rng: np.random.Generator, world: World, times: tuple[float, ...], places: list[tuple[int, int]]
) -> tuple[list[_Actor], list[Question]]:
    item = make_item(rng, world, random_size(rng))
    actor = _still(item, point_in(rng, places[0], item.size), len(times))
    return [actor], [Question("event", phrased(rng, _WHAT), "nothing happens")]


def _called(rng: np.random.Generator, item: Item) -> str:
    return item.phrase if rng.random() < 0.5 else item.name


_EVENT_MAKERS = {
    "moves": _moves,
    "falls": _falls,
    "appears": _appears,
    "disappears": _disappears,
    "changes colour": _changes_colour,
    "two appear": _two_appear,
    "nothing": _nothing,
}
