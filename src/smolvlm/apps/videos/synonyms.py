"""Words of users for what captions say: groups of English words that mean nearly the same of something that happens.

A query's word also finds the others of its group. Kept small on purpose: each pair is a claim, and a wrong one finds wrong things.
"""

from __future__ import annotations

from functools import cache

_GROUPS = (
    "fall falls falling fell fallen drop drops dropping dropped tumble tumbles tumbling collapse collapses topple topples toppling",
    "appear appears appearing appeared emerge emerges emerging arrive arrives arriving come comes coming enter enters",
    "disappear disappears disappearing disappeared vanish vanishes vanishing vanished gone leave leaves leaving exit exits missing",
    "move moves moving moved go goes going travel travels traveling travelling slide slides sliding drift drifts shift shifts",
    "turn turns turning become becomes becoming change changes changing changed",
    "up upward upwards rise rises rising rose ascend ascends climb climbs",
    "down downward downwards sink sinks sinking descend descends descending",
    "left leftward leftwards",
    "right rightward rightwards",
    "walk walks walking step steps stepping stroll strolls",
    "run runs running race races racing sprint sprints",
    "open opens opening opened",
    "close closes closing closed shut shuts shutting",
    "person people man men woman women somebody someone human humans child children",
    "bend bends bending stoop stoops stooping crouch crouches crouching",
    "car cars vehicle vehicles automobile automobiles",
    "plane planes airplane airplanes aeroplane aircraft",
    "dog dogs puppy puppies hound",
    "cat cats kitten kittens kitty",
)


@cache
def _groups() -> dict[str, tuple[str, ...]]:
    return {word: tuple(group.split()) for group in _GROUPS for word in group.split()}


def same_meaning(word: str) -> tuple[str, ...]:
    """`word` and the words that may stand for it."""
    return tuple(dict.fromkeys((word, *_groups().get(word, ()))))
