"""Bar charts, measured from their pixels."""

from __future__ import annotations

import numpy as np
import pytest

from smolvlm.synth.charts import Chart, draw_chart, plot, random_chart
from smolvlm.synth.world import SMALL, WIDE


def _bars_by_pixels(pixels: np.ndarray, colours: tuple[tuple[int, int, int], ...]) -> list[tuple[int, int]]:
    """(left, height) of each run of bar-coloured columns, found without the plotter's own boxes."""
    is_bar = np.zeros(pixels.shape[:2], dtype=bool)
    for colour in set(colours):
        is_bar |= (pixels == colour).all(axis=2)
    tall = np.flatnonzero(is_bar.sum(axis=0) >= 4)
    runs = np.split(tall, np.flatnonzero(np.diff(tall) > 1) + 1)
    return [(int(run[0]), int(is_bar[:, run].sum(axis=0).max())) for run in runs if len(run)]


@pytest.mark.parametrize("seed", range(20))
def test_bars_have_the_heights_of_their_values(seed: int) -> None:
    rng = np.random.default_rng(seed)
    chart = random_chart(rng, 5)
    canvas, boxes = plot(rng, chart, 240, "train")
    found = _bars_by_pixels(np.asarray(canvas), chart.colours)
    assert len(found) == len(chart.values) == len(boxes)
    heights = np.array([height for _, height in found], dtype=float)
    values = np.array(chart.values, dtype=float)
    px_per_unit = heights.sum() / values.sum()
    np.testing.assert_allclose(heights, values * px_per_unit, atol=2.0)  # edges fall on whole pixels
    assert chart.labels[int(heights.argmax())] == chart.highest()
    assert chart.labels[int(heights.argmin())] == chart.lowest()


def test_answers_are_worked_out_right() -> None:
    chart = Chart(("A", "B", "C"), (4, 9, 2), ((200, 0, 0),) * 3, 10, 1, True)
    assert chart.highest() == "B"
    assert chart.lowest() == "C"


def test_values_can_be_read_off() -> None:
    """No two bars are equal; what is not printed lies on a gridline; nothing is above the axis."""
    rng = np.random.default_rng(1)
    styles = set()
    for _ in range(300):
        chart = random_chart(rng, 6)
        styles.add(chart.printed)
        assert len(set(chart.values)) == len(chart.values)
        assert len(set(chart.labels)) == len(chart.labels)
        assert 0 < min(chart.values) <= max(chart.values) <= chart.top
        assert chart.printed or all(value % chart.step == 0 for value in chart.values)
    assert styles == {True, False}


@pytest.mark.parametrize("world", [SMALL, WIDE], ids=lambda world: world.name)
def test_a_chart_question_has_the_charts_answer(world: object) -> None:
    for seed in range(20):
        sample = draw_chart(np.random.default_rng(seed), world, "test")  # type: ignore[arg-type]
        chart = random_chart(np.random.default_rng(seed), 5 if world is SMALL else 6)  # the same first draws
        answers = {question.task: question for question in sample.questions}
        assert answers["chart_highest"].answer == chart.labels[chart.values.index(max(chart.values))]
        assert answers["chart_lowest"].answer == chart.labels[chart.values.index(min(chart.values))]
        assert answers["chart_bars"].answer == str(len(chart.values))
        asked = answers["chart_value"]
        words = asked.text.rstrip("?").split()
        label = next(name for name in chart.labels if name in words)
        assert asked.answer == str(chart.values[chart.labels.index(label)])
