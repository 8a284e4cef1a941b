"""Clips in a room: somebody falls, bends down, enters or leaves, the door opens or closes, or nothing happens for long."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from smolvlm.synth.clips import clock, frame_times
from smolvlm.synth.finish import Camera
from smolvlm.synth.people import random_look
from smolvlm.synth.questions import phrased
from smolvlm.synth.rooms import DOOR_SLOT, SLOTS, Person, State, random_room, random_state, render
from smolvlm.synth.sample import Question, Sample, Split
from smolvlm.synth.world import World

EVENTS = ("falls", "bends", "enters", "leaves", "opens", "closes", "nothing")
_SHARES = (0.22, 0.16, 0.14, 0.12, 0.09, 0.09, 0.18)

_WHAT = ("What happens?", "What happens in the clip?", "What happens in the room?", "What happens in this video?")
_FALL = ("Does anybody fall?", "Does somebody fall down?", "Is there a fall in this video?")
_WHEN = ("When does {}?", "At what time does {}?")
_COUNT_END = ("How many people are in the room at the end?", "How many people do you see in the last frame?")


@dataclass(frozen=True)
class Event:
    """The states of a clip, frame by frame, what to say of them, and the frame in which it happens (None: nothing does).

    `asked_when` completes "When does ...?".
    """

    states: tuple[State, ...]
    answer: str
    at: int | None = None
    asked_when: str = ""


def draw_room_clip(rng: np.random.Generator, world: World, split: Split) -> Sample:
    """A clip of 3 to 6 frames; stillness lasts up to some minutes."""
    name = str(rng.choice(EVENTS, p=_SHARES))
    times, duration_s = frame_times(rng)
    if name == "nothing" and rng.random() < 0.6:
        step = int(rng.integers(10, 61))
        times, duration_s = tuple(float(i * step) for i in range(6)), float(6 * step)
    event = _MAKERS[name](rng, len(times))
    room = random_room(rng, world.side_px, split)
    camera = Camera(rng, 0.6)
    drawn = [render(room, state) for state in event.states]
    questions = [Question("event", phrased(rng, _WHAT), event.answer)]
    # Falls are asked about wherever there is one, and as often where there is none; bending is the hard "no".
    if name == "falls" or name == "bends" or rng.random() < 0.1:
        questions.append(Question("fall", phrased(rng, _FALL), "yes" if name == "falls" else "no"))
    if event.at is not None:
        questions.append(Question("when", phrased(rng, _WHEN, event.asked_when), f"at {clock(times[event.at])}"))
    if name in ("enters", "leaves"):
        questions.append(Question("people_count", phrased(rng, _COUNT_END), str(len(event.states[-1].people))))
    return Sample(
        "video",
        tuple(camera.shoot(picture) for picture, _ in drawn),
        tuple(questions),
        times,
        duration_s,
        tuple(truth for _, truth in drawn),
    )


def _start(rng: np.random.Generator, least: int = 0) -> State:
    return random_state(rng, int(rng.integers(least, 3)))


def _with(state: State, person: Person) -> State:
    """The state with its first person changed."""
    return replace(state, people=(person, *state.people[1:]))


def _falls(rng: np.random.Generator, count: int) -> Event:
    """Somebody stands, then lies on the floor for the rest of the clip."""
    state = _start(rng, 1)
    at = int(rng.integers(1, count))
    lying = _with(state, replace(state.people[0], pose="lying"))
    states = (state,) * at + (lying,) * (count - at)
    return Event(states, "a person falls", at, "the person fall")


def _bends(rng: np.random.Generator, count: int) -> Event:
    """Somebody bends down for one frame or two and stands again, if the clip is long enough to show it."""
    state = _start(rng, 1)
    at = int(rng.integers(1, count))
    frames = min(int(rng.integers(1, 3)), count - at)
    bent = _with(state, replace(state.people[0], pose="bending"))
    states = (state,) * at + (bent,) * frames + (state,) * (count - at - frames)
    return Event(states, "a person bends down", at, "the person bend down")


def _enters(rng: np.random.Generator, count: int) -> Event:
    """The door opens with somebody in it, who then goes to a free place."""
    inside = _start(rng)
    at = int(rng.integers(1, count))
    coming, goal = random_look(rng), _free_slot(rng, inside)
    states = []
    for t in range(count):
        if t < at:
            states.append(replace(inside, door_open=False))
        else:
            slot = DOOR_SLOT if t == at else goal
            states.append(replace(inside, people=(*inside.people, Person(coming, slot)), door_open=True))
    return Event(tuple(states), "a person enters", at, "a person enter")


def _leaves(rng: np.random.Generator, count: int) -> Event:
    """Somebody goes to the open door and is gone in the frame `at`."""
    state = replace(_start(rng, 1), door_open=True)
    at = int(rng.integers(1, count))
    states = []
    for t in range(count):
        if t >= at:
            states.append(replace(state, people=state.people[1:]))
        elif t == at - 1 and at > 1:
            states.append(_with(state, replace(state.people[0], slot=DOOR_SLOT)))
        else:
            states.append(state)
    return Event(tuple(states), "a person leaves", at, "the person leave")


def _opens(rng: np.random.Generator, count: int) -> Event:
    return _door_event(rng, count, opens=True)


def _closes(rng: np.random.Generator, count: int) -> Event:
    return _door_event(rng, count, opens=False)


def _door_event(rng: np.random.Generator, count: int, *, opens: bool) -> Event:
    state = _start(rng)
    at = int(rng.integers(1, count))
    states = tuple(replace(state, door_open=(t >= at) == opens) for t in range(count))
    verb = "open" if opens else "close"
    return Event(states, f"the door {verb}s", at, f"the door {verb}")


def _nothing(rng: np.random.Generator, count: int) -> Event:
    """People stand or, now and then, lie there from the first frame on: what has happened before is no event."""
    state = _start(rng)
    if state.people and rng.random() < 0.15:
        state = _with(state, replace(state.people[0], pose="lying"))
    return Event((state,) * count, "nothing happens")


def _free_slot(rng: np.random.Generator, state: State) -> int:
    taken = {person.slot for person in state.people}
    return int(rng.choice([slot for slot in range(SLOTS) if slot not in taken]))


_MAKERS: dict[str, Callable[[np.random.Generator, int], Event]] = {
    "falls": _falls,
    "bends": _bends,
    "enters": _enters,
    "leaves": _leaves,
    "opens": _opens,
    "closes": _closes,
    "nothing": _nothing,
}
