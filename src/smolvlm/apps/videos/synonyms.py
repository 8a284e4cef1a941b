"""Words of users for what captions say: English words, and short phrases, that mean nearly the same of something that happens.

Kept small on purpose: each entry is a claim, and a wrong one finds wrong things.
"""

from __future__ import annotations

import re
from functools import cache

_GROUPS = (
    "falls fall falling fell fallen drop drops dropping dropped tumble tumbles tumbling collapse collapses topple topples toppling",
    "appears appear appearing appeared emerge emerges emerging arrive arrives arriving come comes coming enter enters entering",
    "disappears disappear disappearing disappeared vanish vanishes vanishing vanished gone leave leaves leaving exit exits",
    "moves move moving moved go goes going travel travels traveling travelling slide slides sliding drift drifts shift shifts",
    "turns turn turning become becomes becoming change changes changing changed",
    "up upward upwards rise rises rising rose ascend ascends climb climbs",
    "down downward downwards sink sinks sinking descend descends descending",
    "left leftward leftwards",
    "right rightward rightwards",
    "walk walks walking step steps stepping stroll strolls",
    "run runs running race races racing sprint sprints",
    "open opens opening opened",
    "close closes closing closed shut shuts shutting",
    "person people man men woman women somebody someone human humans",
    "bends bend bending stoop stoops stooping crouch crouches crouching",
    "car cars vehicle vehicles automobile automobiles",
    "airplane airplanes plane planes aeroplane aircraft",
    "dog dogs puppy puppies hound",
    "cat cats kitten kittens kitty",
)
# Longer ones first: a phrase is replaced as a whole.
_PHRASES = (
    (r"(?:comes?|coming) into (?:view|sight|the picture|the frame)|(?:shows?|showing|pops?|popping|turns?|turning) up(?!\w)", "appears"),
    (r"(?:goes|go|going|fades?|fading) away|(?:is|are|was) gone|(?:goes|go) out of (?:view|sight)|is no longer there", "disappears"),
    (r"(?:falls?|falling|drops?|dropping|tumbles?|tumbling) (?:down|over|to the (?:ground|floor))|(?:tips?|tipping) over", "falls"),
    (r"(?:toward|towards|to|on) the (left|right)(?: hand)? side|(?:toward|towards) the (left|right)", r"to the \1\2"),
    (r"(?:rises|rising|rise|climbs?|climbing|ascends?)", "moves up"),
    (r"(?:sinks?|sinking|descends?|descending)", "moves down"),
    (r"changes? (?:color|colour) to|changes? to|(?:turns?|turning) into", "turns"),
)


@cache
def _groups() -> dict[str, tuple[str, ...]]:
    return {word: tuple(group.split()) for group in _GROUPS for word in group.split()}


def same_meaning(word: str) -> tuple[str, ...]:
    """`word` and the words that may stand for it, the plainest first behind it."""
    return tuple(dict.fromkeys((word, *_groups().get(word, ()))))


def plainer(text: str) -> str:
    """`text` in lower case with phrases of several words put as one."""
    text = " ".join(text.lower().split()).rstrip(".!?")
    for phrase, word in _PHRASES:
        text = re.sub(rf"\b(?:{phrase})\b", word, text)
    return text
