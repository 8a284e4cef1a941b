"""The benchmark's items: held out, balanced, the same for every count; clips reach the model at their own times."""

from __future__ import annotations

import io
from collections import Counter

import av
import numpy as np
import pytest

from smolvlm.config import preset, processor_preset
from smolvlm.errors import SynthError
from smolvlm.evals.metrics import things
from smolvlm.evals.synth_suite import media_of, synth_suite, video_bytes
from smolvlm.media.video import sample_video
from smolvlm.synth.benchmark import TASKS, Item, items
from smolvlm.synth.generate import generate
from smolvlm.synth.world import SMALL, WIDE


def identity(item: Item) -> tuple[str, int, int, str, str]:
    return item.task, item.number, item.index, item.question.text, item.question.answer


def test_there_are_the_tasks_that_the_issue_asks_for() -> None:
    assert len(TASKS) >= 12
    assert {
        "colour",
        "object",
        "presence",
        "position",
        "spatial",
        "count",
        "caption",
        "reading_word",
        "reading_number",
        "motion",
        "event",
        "when",
        "first",
        "compare",
    } <= set(TASKS)


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.slow
def test_items_come_from_the_test_split_one_a_sample_and_do_not_depend_on_the_count(task: str) -> None:
    many, few = list(items(task, 10)), list(items(task, 3))
    assert [identity(item) for item in few] == [identity(item) for item in many[:3]]
    assert [item.number for item in many] == list(range(10))
    assert len({item.index for item in many}) == 10
    for item in many[:2]:
        drawn = generate(TASKS[task].generator, "test", item.index)
        assert item.question in drawn.questions
        assert drawn.frames[0].tobytes() == item.sample.frames[0].tobytes()
        assert item.question.task in TASKS[task].asked


@pytest.mark.parametrize(
    ("task", "answers"),
    [
        ("presence", {"yes", "no"}),
        ("spatial", {"left", "right", "above", "below"}),
        ("count", set("12345")),
        ("motion", {"left", "right", "up", "down"}),
        ("same", {"yes", "no"}),
    ],
)
@pytest.mark.slow
def test_answers_are_balanced_evenly(task: str, answers: set[str]) -> None:
    counted = Counter(item.question.answer for item in items(task, 40))
    assert counted == {answer: 40 // len(answers) for answer in answers}


def test_colours_places_and_lengths_take_turns() -> None:
    assert {item.question.answer for item in items("colour", 10)} == set(SMALL.colours)
    assert len({item.question.answer for item in items("position", 9)}) == 9
    assert [len(item.question.answer) for item in items("reading_word", 10)] == [1, 2, 3, 4, 5] * 2
    assert [len(item.question.answer) for item in items("reading_number", 5, WIDE)] == [1, 2, 3, 4, 5]


def test_captions_name_what_the_picture_holds() -> None:
    for item in items("caption", 30):
        assert Counter(things(item.question.answer)) == Counter(i.phrase for i in item.sample.truths[0].items)


def test_a_clip_reaches_the_model_with_its_own_pixels_and_times() -> None:
    config = processor_preset(preset("nano"))
    samples = [generate("clip", "test", i) for i in range(12)] + [generate("room_clip", "test", i) for i in range(12)]
    steps = set()
    for sample in samples:
        video = sample_video(video_bytes(sample), config)
        assert video.timestamps_s == sample.timestamps_s
        assert video.duration_s == sample.duration_s
        steps.add(sample.timestamps_s[1])
    assert len(steps) > 3  # not only a frame a second: up to a minute apart
    square = next(s for s in samples if s.frames[0].shape == (192, 192, 3))
    with av.open(io.BytesIO(video_bytes(square))) as container:
        for frame, expected in zip(container.decode(video=0), square.frames, strict=True):
            np.testing.assert_array_equal(frame.to_ndarray(format="rgb24"), expected)


def test_two_pictures_are_two_parts_in_order() -> None:
    sample = generate("pair", "test", 0)
    parts = media_of(sample)
    assert [part["type"] for part in parts] == ["image", "image"]
    for part, frame in zip(parts, sample.frames, strict=True):
        np.testing.assert_array_equal(np.asarray(part["image"]), frame)


def test_cases_from_a_number_on_are_the_same_cases() -> None:
    suite = synth_suite()
    whole, rest = list(suite.cases("count", 6, 0)), list(suite.cases("count", 6, 4))
    assert [(c.number, c.question, c.expected) for c in whole[4:]] == [(c.number, c.question, c.expected) for c in rest]


def test_unknown_tasks_and_counts_are_named() -> None:
    with pytest.raises(SynthError, match="no task 'colours'; it has colour, object"):
        items("colours")
    with pytest.raises(SynthError, match="count=0"):
        items("colour", 0)
