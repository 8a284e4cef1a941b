"""Parts on a belt: a defect changes the pixels of its own box and no others."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from smolvlm.errors import SynthError
from smolvlm.synth.part_drawing import DEFECTS, OUTLINES, Part, body_mask, render_part
from smolvlm.synth.parts import DEFECT_KINDS, NEW_KIND, PART_KINDS, belt, draw_part, random_part, with_defect
from smolvlm.synth.world import SMALL

SIDE = 160


@pytest.mark.parametrize("defect", DEFECTS)
@pytest.mark.parametrize("kind", OUTLINES)
def test_a_defect_changes_its_box_and_nothing_else(kind: str, defect: str) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sound = random_part(rng, kind)
        broken = with_defect(rng, sound, defect)
        ground = belt(rng, SIDE, "train")
        before, after = (np.asarray(render_part(part, ground), dtype=int) for part in (sound, broken))
        changed = np.abs(before - after).max(axis=2)
        assert broken.defect is not None
        x0, y0, x1, y1 = (round(v * SIDE) for v in broken.defect.box)
        outside = changed.copy()
        outside[y0 : y1 + 1, x0 : x1 + 1] = 0
        assert outside.max() == 0, f"seed {seed}"
        # It can be seen: at least 20 pixels change by 40 levels or more.
        assert (changed >= 40).sum() >= 20, f"seed {seed}: {(changed >= 40).sum()} pixels"


@pytest.mark.parametrize("kind", OUTLINES)
def test_a_sound_part_has_its_holes_and_a_missing_one_is_metal(kind: str) -> None:
    ground = np.zeros((SIDE, SIDE, 3), dtype=np.float32)
    part = Part(kind, (0.5, 0.5), 0.8, 33.0, (180, 180, 180), 4)
    sound = np.asarray(render_part(part, ground), dtype=int)
    for x, y, _ in OUTLINES[kind].holes:
        px, py = part.place((x, y))
        assert sound[round(py * SIDE), round(px * SIDE)].max() < 40
    broken = with_defect(np.random.default_rng(0), part, "missing hole")
    assert broken.defect is not None
    picture = np.asarray(render_part(broken, ground), dtype=int)
    px, py = part.place(broken.defect.points[0])
    assert picture[round(py * SIDE), round(px * SIDE)].min() > 120


def test_turning_moves_a_point_as_worked_out_by_hand() -> None:
    part = Part("plate", (0.5, 0.5), 0.8, 90.0, (180, 180, 180), 0)
    # A quarter turn with y downward takes "right" to "down": (1, 0) -> (0, 1), times the radius 0.4.
    np.testing.assert_allclose(part.place((1.0, 0.0)), (0.5, 0.9), atol=1e-12)
    np.testing.assert_allclose(part.place((0.0, 1.0)), (0.1, 0.5), atol=1e-12)


def test_metal_is_where_the_outline_says() -> None:
    mask = body_mask(Part("washer", (0.5, 0.5), 0.8, 0.0, (180, 180, 180), 0))
    # A ring from 0.36 to 0.92 in a square of side 2.
    assert mask.mean() == pytest.approx(np.pi * (0.92**2 - 0.36**2) / 4, abs=0.02)
    assert body_mask(Part("bracket", (0.5, 0.5), 0.8, 0.0, (180, 180, 180), 0), margin=0.2).any()


@pytest.mark.slow
def test_answers_are_balanced_and_follow_from_the_truth() -> None:
    yes, kinds, parts = Counter[str](), Counter[str](), Counter[str]()
    for seed in range(240):
        sample = draw_part(np.random.default_rng([9, seed]), SMALL, "train")
        names = [item.name for item in sample.truths[0].items]
        for question in sample.questions:
            if question.task == "defect":
                yes[question.answer] += 1
                assert (question.answer == "yes") == (len(names) == 2)
            elif question.task == "defect_kind":
                kinds[question.answer] += 1
                assert question.answer == (names[1] if len(names) == 2 else "none")
            else:
                parts[question.answer] += 1
                assert question.answer == f"a {names[0]}"
    print(yes, kinds, parts)
    assert 0.4 < yes["yes"] / yes.total() < 0.6
    assert set(kinds) == {*DEFECT_KINDS, "none"}
    assert max(kinds.values()) / kinds.total() < 0.4
    assert set(parts) == {f"a {kind}" for kind in PART_KINDS}


def test_the_new_kind_is_drawn_only_when_asked_for() -> None:
    assert NEW_KIND not in PART_KINDS
    sample = draw_part(np.random.default_rng(0), SMALL, "train", kinds=(NEW_KIND,))
    assert sample.truths[0].items[0].name == NEW_KIND
    assert {question.task for question in sample.questions} <= {"defect", "defect_kind"}
    all_bad = [draw_part(np.random.default_rng(i), SMALL, "test", defects=("crack",), defect_share=1.0) for i in range(5)]
    assert all(sample.truths[0].items[1].name == "crack" for sample in all_bad)


def test_unknown_kinds_are_told() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(SynthError, match="'cog'.*washer"):
        draw_part(rng, SMALL, "train", kinds=("cog",))
    with pytest.raises(SynthError, match="'rust'.*scratch"):
        draw_part(rng, SMALL, "train", defects=("rust",))
    with pytest.raises(SynthError, match="empty"):
        draw_part(rng, SMALL, "train", kinds=())
