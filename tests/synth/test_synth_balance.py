"""What holds for documents, charts, parts and rooms alike: seeds, splits, balance, speed."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable

import numpy as np
import pytest

from smolvlm.synth.charts import draw_chart
from smolvlm.synth.documents import draw_invoice, draw_note, draw_receipt
from smolvlm.synth.parts import draw_part
from smolvlm.synth.room_clips import draw_room_clip
from smolvlm.synth.rooms import draw_room
from smolvlm.synth.sample import SPLITS, Sample, Split
from smolvlm.synth.world import SMALL, WIDE, World

DRAW: dict[str, Callable[[np.random.Generator, World, Split], Sample]] = {
    "invoice": draw_invoice,
    "receipt": draw_receipt,
    "note": draw_note,
    "chart": draw_chart,
    "part": draw_part,
    "room": draw_room,
    "room_clip": draw_room_clip,
}


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.parametrize("world", [SMALL, WIDE], ids=lambda world: world.name)
def test_the_same_seed_is_the_same_sample_in_every_split(name: str, world: World) -> None:
    for split in SPLITS:
        first, second = (DRAW[name](np.random.default_rng(11), world, split) for _ in range(2))
        assert first.questions == second.questions
        for a, b in zip(first.frames, second.frames, strict=True):
            assert a.dtype == np.uint8
            assert a.ndim == 3
            assert a.shape[0] == a.shape[1] >= world.side_px
            assert a.shape[2] == 3
            np.testing.assert_array_equal(a, b)
    other = DRAW[name](np.random.default_rng(12), world, "train")
    assert other.frames[0].tobytes() != DRAW[name](np.random.default_rng(11), world, "train").frames[0].tobytes()


@pytest.mark.parametrize("name", DRAW)
@pytest.mark.slow
def test_no_constant_answer_is_right_too_often(name: str) -> None:
    """At most 60 % for one answer of a task, at least two wordings of each question; and a bound on the time."""
    answers: defaultdict[str, Counter[str]] = defaultdict(Counter)
    wordings: defaultdict[str, set[str]] = defaultdict(set)
    start = time.perf_counter()
    count = 150
    for seed in range(count):
        for question in DRAW[name](np.random.default_rng([2, seed]), SMALL, "train").questions:
            answers[question.task][question.answer] += 1
            wordings[question.task].add(question.text)
    ms = (time.perf_counter() - start) / count * 1000
    for task, counted in answers.items():
        commonest, times = counted.most_common(1)[0]
        print(f"{name}: {task}: {counted.total()} asked, {commonest!r} {times / counted.total():.0%}")
        assert times / counted.total() <= 0.6
        assert len(wordings[task]) >= 2
        assert all(answer == answer.strip() and not answer.endswith(".") for answer in counted)
    print(f"{name}: {ms:.1f} ms a sample")
    assert ms < 100  # 3 to 9 alone on one core; the bound is for a machine that trains at the same time
