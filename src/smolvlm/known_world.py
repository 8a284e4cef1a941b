"""What `nano`, the model in the package, knows - drawn scenes - and whether a picture and a question lie in it.

The checks are cheap and one-sided: a picture with more colors than `smolvlm.synth` uses is taken for a photograph, and a
question is known when it is worded like one that nano was trained on. Both can be wrong, so an answer always carries the
sentence `KNOWS`, and a sharper one where a check fails.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

KNOWS = "nano is a small demonstration model that knows drawn scenes, signs and clips only, and nothing of photographs."

# Effective colors of a picture (see `color_count`) above which it is taken for a photograph. Of the held-out drawn
# scenes 0.5 % lie above; of 19 photographs and film frames 18 do: tests/test_known_world.py.
MAX_DRAWN_COLORS = 75.0
_GRID = 48  # a picture is averaged to this many squares a side: noise and small print go, gradients and texture stay
_FRAMES = 4  # looked at of a video

# The wordings that nano was trained on; NAME stands for a shape, an object, a color (or two: "red star") or a part of
# the picture. Compared without case and marks. Documents and charts are left out: it hardly reads them.
_WORDINGS = """
are the two pictures the same
at what time does a person enter
at what time does the NAME appear
at what time does the NAME disappear
at what time does the NAME fall
at what time does the door close
at what time does the door open
at what time does the person bend down
at what time does the person fall
at what time does the person leave
can you describe this image
can you see a NAME
can you see a bed
can you see a couch
compare the two pictures
count the NAME
count the people
describe the image
describe the video
describe this in detail
describe this picture
does anybody fall
does somebody fall down
does the part have a defect
does the picture show a NAME
does the room have a NAME
does the room have a bed
does the room have a couch
how many NAME are in the picture
how many NAME are there
how many NAME do you see
how many people are in the room
how many people are in the room at the end
how many people are there
how many people do you see
how many people do you see in the last frame
in which direction does the NAME move
in which part of the picture is the NAME
is the NAME above or below the NAME
is the NAME or NAME of the NAME
is the door closed or open
is the door open or closed
is the part defective
is there a NAME
is there a NAME in the picture
is there a NAME in the room
is there a bed
is there a bed in the room
is there a couch
is there a couch in the room
is there a defect
is there a fall in this video
is this part damaged
name the defect
name the object
name the part
read the number
read the text
what appears first the NAME or the NAME
what changed between the pictures
what color is the NAME
what colour is the NAME
what do you see
what do you see at the NAME
what do you see in the NAME
what do you see on the NAME
what does the NAME do
what does the picture show
what does the sign say
what does the text say
what happens
what happens in the clip
what happens in the room
what happens in this video
what happens to the NAME
what has changed
what is at the NAME
what is different in the second picture
what is in the NAME
what is in this picture
what is on the NAME
what is shown here
what is the NAME doing
what is the colour of the NAME
what is the state of the door open or closed
what is this
what is written here
what is wrong with the part
what kind of defect is there
what kind of part is this
what number do you see
what number is this
what part is this
what pet is in the room
what thing is this
what word is this
when does a person enter
when does the NAME appear
when does the NAME disappear
when does the NAME fall
when does the door close
when does the door open
when does the person bend down
when does the person fall
when does the person leave
where can you see the NAME
where does the NAME go
where is the NAME
which animal is there
which colour is the NAME
which comes first the NAME or the NAME
which defect does the part have
which number is shown
which part is on the belt
which pet is in the room
which thing is at the NAME
which thing is in the NAME
which thing is on the NAME
which way does the NAME move
which word do you see
""".strip().splitlines()


def color_count(pixels: npt.NDArray[np.uint8]) -> float:
    """How many colors a picture, (height, width, 3), uses evenly: 2 to the entropy of its averaged squares' colors."""
    rows = np.linspace(0, pixels.shape[0], min(_GRID, pixels.shape[0]) + 1).astype(int)[:-1]
    columns = np.linspace(0, pixels.shape[1], min(_GRID, pixels.shape[1]) + 1).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(np.uint32), rows, axis=0), columns, axis=1)
    ones = np.ones(pixels.shape[:2], np.uint32)
    areas = np.add.reduceat(np.add.reduceat(ones, rows, axis=0), columns, axis=1)
    levels = (sums // areas[..., None] // 8).astype(np.int64)  # 32 a channel
    counts = np.unique(levels[..., 0] * 1024 + levels[..., 1] * 32 + levels[..., 2], return_counts=True)[1]
    shares = counts / counts.sum()
    return float(np.exp2(-(shares * np.log2(shares)).sum()))


def looks_drawn(tiles: npt.NDArray[np.uint8]) -> bool:
    """Whether a medium, uint8 (tiles, side, side, 3), has as few colors as a drawn scene: by the middle one of its tiles."""
    if not len(tiles):
        return True
    chosen = np.linspace(0, len(tiles) - 1, min(_FRAMES, len(tiles))).astype(int)
    return float(np.median([color_count(tiles[i]) for i in chosen])) <= MAX_DRAWN_COLORS


def is_known(question: str) -> bool:
    """Whether a question is worded like one that nano was trained on."""
    return _skeleton(question) in _known()


def unknown_words(question: str) -> list[str]:
    """The words of a question that occur in no wording and no name, in their order, each once."""
    known = _known_words()
    return [word for word in dict.fromkeys(_words(question)) if word not in known]


def warning(question: str, photographs: Sequence[str] = ()) -> str:
    """One sentence about an answer of nano. `photographs`: the labels of media that do not look drawn."""
    reasons = []
    if photographs:
        others = f" (and {len(photographs) - 1} more)" if len(photographs) > 1 else ""
        reasons.append(f"{photographs[0]}{others} does not look drawn")
    if words := unknown_words(question):
        reasons.append(f"the question has words that it never met ({', '.join(words[:4])})")
    elif not is_known(question):
        reasons.append("it never met a question worded like this")
    if not reasons:
        return KNOWS
    return f"nano knows drawn scenes only: {', and '.join(reasons)}; do not rely on this answer, and ask a larger model (256m)."


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+(?:'[^\W_]+)?", text[:2000].casefold())


def _skeleton(question: str) -> str:
    """The wording without its names: "where is the NAME"."""
    text = " ".join("a" if word == "an" else word for word in _words(question))
    text = _names().sub("NAME", text)
    return re.sub(r"NAME(?: NAME)+", "NAME", text)


@functools.cache
def _known() -> frozenset[str]:
    return frozenset(_WORDINGS)


@functools.cache
def _name_list() -> tuple[str, ...]:
    from smolvlm.synth.words import PLACES, plural
    from smolvlm.synth.world import SMALL

    things = [*SMALL.objects, *SMALL.shapes]
    found = {*things, *map(plural, things), *SMALL.colours, *(place for row in PLACES for place in row), "shapes"}
    return tuple(sorted(found, key=lambda name: (-len(name), name)))


@functools.cache
def _names() -> re.Pattern[str]:
    return re.compile(rf"\b(?:{'|'.join(map(re.escape, _name_list()))})\b")


@functools.cache
def _known_words() -> frozenset[str]:
    texts = [*_WORDINGS, *_name_list()]
    return frozenset(word for text in texts for word in text.split() if word != "NAME") | {"an", "center"}
