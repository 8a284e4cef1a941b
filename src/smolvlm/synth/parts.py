"""Metal parts on a conveyor: sound ones and ones with a scratch, a dent, a missing hole or a crack.

A part is described first and drawn then, so the same part can be drawn with and without its defect: outside of the
defect's box the two pictures are equal, which is what makes the answer exact.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from smolvlm.errors import SynthError
from smolvlm.synth.backgrounds import background
from smolvlm.synth.finish import finish
from smolvlm.synth.part_drawing import DEFECTS, OUTLINES, Defect, Part, body_mask, render_part
from smolvlm.synth.questions import phrased
from smolvlm.synth.sample import FrameTruth, ItemTruth, Question, Sample, Split
from smolvlm.synth.words import with_article
from smolvlm.synth.world import World

PART_KINDS = ("washer", "nut", "gear", "plate", "bracket")
NEW_KIND = "flange"  # not in the default draw: what the fine-tuning example teaches
DEFECT_KINDS = ("scratch", "dent", "missing hole")  # "crack" can be asked for; no generator draws it by itself

_DEFECT = ("Does the part have a defect?", "Is the part defective?", "Is there a defect?", "Is this part damaged?")
_KIND = ("Which defect does the part have?", "What is wrong with the part?", "What kind of defect is there?", "Name the defect.")
_PART = ("What kind of part is this?", "Which part is on the belt?", "Name the part.", "What part is this?")


def draw_part(
    rng: np.random.Generator,
    world: World,
    split: Split,
    *,
    kinds: tuple[str, ...] = PART_KINDS,
    defects: tuple[str, ...] = DEFECT_KINDS,
    defect_share: float = 0.5,
) -> Sample:
    """One part on a belt; `defect_share` of the parts have one of `defects`.

    Raises:
        SynthError: an unknown kind of part or defect, or none at all.
    """
    _check(kinds, OUTLINES, "kind of part", "kinds")
    _check(defects, DEFECTS, "defect", "defects")
    part = random_part(rng, str(rng.choice(kinds)))
    if rng.random() < defect_share:
        part = with_defect(rng, part, str(rng.choice(defects)))
    side = world.side_px
    canvas = render_part(part, belt(rng, side, split))
    name = part.defect.kind if part.defect else "none"
    questions = [Question("defect", phrased(rng, _DEFECT), "no" if part.defect is None else "yes")]
    # A sound part is asked for its defect one time in len(defects): "none" is then as frequent as each defect.
    if part.defect is not None or rng.random() < 1 / len(defects):
        questions.append(Question("defect_kind", phrased(rng, _KIND), name))
    if len(kinds) > 1:
        questions.append(Question("part", phrased(rng, _PART), with_article(part.kind)))
    return Sample("image", (finish(rng, canvas, strength=0.5),), tuple(questions), truths=(part_truth(part),))


def part_truth(part: Part) -> FrameTruth:
    """The part and, if it has one, its defect, with their boxes."""
    x, y = part.centre
    radius = part.size / 2
    items = [ItemTruth(part.kind, None, (x - radius, y - radius, x + radius, y + radius))]
    if part.defect is not None:
        items.append(ItemTruth(part.defect.kind, None, part.defect.box))
    return FrameTruth(tuple(items))


def random_part(rng: np.random.Generator, kind: str) -> Part:
    """A sound part of `kind` with a random place, size, turn and metal."""
    size = float(rng.uniform(0.62, 0.86))
    room = (1 - size) / 2 - 0.02
    grey = int(rng.integers(145, 205))
    metal = (grey + int(rng.integers(-6, 12)), grey, grey + int(rng.integers(-14, 10)))
    centre = (0.5 + float(rng.uniform(-room, room)), 0.5 + float(rng.uniform(-room, room)))
    return Part(kind, centre, size, float(rng.uniform(0, 360)), metal, int(rng.integers(2**31)))


def with_defect(rng: np.random.Generator, part: Part, kind: str) -> Part:
    """The same part with a random defect of `kind`, well inside the metal."""
    if kind == "missing hole":
        holes = OUTLINES[part.kind].holes
        index = int(rng.integers(len(holes)))
        x, y, radius = holes[index]
        return replace(part, defect=_defect(part, kind, ((x, y),), radius + 0.06, index=index))
    if kind == "dent":
        radius = float(rng.uniform(0.14, 0.18))
        spot = _inside(rng, body_mask(part, margin=radius + 0.02), 1)[0]
        return replace(part, defect=_defect(part, kind, (spot,), radius))
    solid = body_mask(part, margin=0.07)
    for _ in range(400):
        (x, y), angle = _inside(rng, solid, 1)[0], float(rng.uniform(0, 2 * math.pi))
        length = float(rng.uniform(0.4, 0.75))
        steps = np.linspace(-0.5, 0.5, 5) * length
        line = tuple((x + float(t) * math.cos(angle), y + float(t) * math.sin(angle)) for t in steps)
        if all(_is_inside(solid, point) for point in line):
            break
    else:  # narrow metal all around: a short one along the last direction tried
        line = tuple((x + float(t) * math.cos(angle), y + float(t) * math.sin(angle)) for t in steps * 0.35)
    if kind == "crack":
        # A crack wanders: every inner point leaves the line, to either side in turn.
        across = (-math.sin(angle) * 0.06, math.cos(angle) * 0.06)
        line = tuple((px + across[0] * (-1) ** i, py + across[1] * (-1) ** i) for i, (px, py) in enumerate(line))
    return replace(part, defect=_defect(part, kind, line, 0.05))


def _defect(part: Part, kind: str, points: tuple[tuple[float, float], ...], reach: float, index: int = -1) -> Defect:
    """`points` and `reach` in the part's own units (its radius is 1); the box is in fractions of the picture."""
    placed = [part.place(point) for point in points]
    pad = (reach + 0.03) * part.size / 2 + 0.012  # and two pixels at 160 for the rounding and smoothing of drawing
    xs, ys = [p[0] for p in placed], [p[1] for p in placed]
    box = (max(0.0, min(xs) - pad), max(0.0, min(ys) - pad), min(1.0, max(xs) + pad), min(1.0, max(ys) + pad))
    return Defect(kind, points, reach, index, box)


def belt(rng: np.random.Generator, side: int, split: Split) -> npt.NDArray[np.float32]:
    """A dark belt (side, side, 3) float32 with rails; its texture is one of the split's backgrounds."""
    texture = np.asarray(background(rng, side, side, split), dtype=np.float32)
    pixels = texture * float(rng.uniform(0.25, 0.4)) + 8
    rail = round(side * float(rng.uniform(0.02, 0.05)))
    light = float(rng.uniform(95, 140))
    if rng.random() < 0.5:
        pixels[:rail] = pixels[-rail:] = light
    else:
        pixels[:, :rail] = pixels[:, -rail:] = light
    return pixels


def _inside(rng: np.random.Generator, solid: npt.NDArray[np.bool_], count: int) -> list[tuple[float, float]]:
    """Random points of a mask, in the part's units (-1 to 1)."""
    rows, columns = np.nonzero(solid)
    picked = rng.integers(0, len(rows), count)
    side = solid.shape[0]
    return [(2 * (float(columns[i]) + 0.5) / side - 1, 2 * (float(rows[i]) + 0.5) / side - 1) for i in picked]


def _is_inside(solid: npt.NDArray[np.bool_], point: tuple[float, float]) -> bool:
    side = solid.shape[0]
    column, row = (int((value + 1) / 2 * side) for value in point)
    return 0 <= row < side and 0 <= column < side and bool(solid[row, column])


def _check(names: tuple[str, ...], known: object, what: str, argument: str) -> None:
    assert isinstance(known, dict | tuple)
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        came = f"{unknown[0]!r}" if unknown else "an empty tuple"
        raise SynthError(f"{argument} holds {came}, which is no {what}; choose from {', '.join(known)}.")
