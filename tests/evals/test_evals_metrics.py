"""Metrics against values worked out by hand and against SciPy-free published ones."""

from __future__ import annotations

from collections import Counter

import pytest

from smolvlm.errors import EvalError
from smolvlm.evals.metrics import caption_right, constant_baseline, exact, things, wilson


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("Top left.", True),
        (" top LEFT ", True),
        ("top left", True),
        ("top left .", True),
        ("top left..", False),
        ("left", False),
        ("top  left", False),
        ("", False),
        ("the top left", False),
    ],
)
def test_case_outer_spaces_and_one_full_stop_do_not_count(answer: str, right: bool) -> None:
    assert exact("top left", answer) is right


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a red star at the top left, a dog in the centre and a cup on the right", {"red star": 1, "dog": 1, "cup": 1}),
        ("An apple in the centre.", {"apple": 1}),
        ("a red star at the top and a red star at the bottom right", {"red star": 2}),
        ("a cup, a dog, and an orange cross", {"cup": 1, "dog": 1, "orange cross": 1}),
        ("there is a cup on the left", {"there is a cup": 1}),  # other words are not read as the thing
        ("", {}),
    ],
)
def test_a_caption_is_the_things_it_names(caption: str, expected: dict[str, int]) -> None:
    assert Counter(things(caption)) == Counter(expected)


@pytest.mark.parametrize(
    ("answer", "right"),
    [
        ("a red star at the top left and a dog in the centre", True),
        ("a dog and a red star", True),  # neither order nor place
        ("a dog at the top left and a red star at the bottom", True),
        ("a red star at the top left", False),  # one is missing
        ("a red star, a dog and a cup", False),  # one is invented
        ("a blue star at the top left and a dog in the centre", False),
        ("a red star, a red star and a dog", False),
    ],
)
def test_a_caption_needs_every_thing_with_its_colour_and_no_other(answer: str, right: bool) -> None:
    assert caption_right("a red star at the top left and a dog in the centre", answer) is right


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 17 (1998), table I, method 3
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (29, 29, 0.8830, 1.0000),
    ],
)
def test_wilson_intervals_are_the_published_ones(right: int, total: int, low: float, high: float) -> None:
    assert wilson(right, total) == pytest.approx((low, high), abs=5.1e-5)


def test_wilson_is_the_set_of_shares_that_the_data_do_not_reject() -> None:
    low, high = wilson(200, 250)
    for share in (low, high):  # its ends are where the observed share is 1.96 standard deviations away
        assert abs(0.8 - share) / (share * (1 - share) / 250) ** 0.5 == pytest.approx(1.959964, abs=1e-6)
    assert wilson(0, 0) == (0.0, 1.0)
    with pytest.raises(EvalError, match="5 right of 4"):
        wilson(5, 4)


def test_the_baseline_is_the_commonest_answer() -> None:
    assert constant_baseline(["yes", "No", "no.", "yes", "no"]) == ("no", 0.6)
    assert constant_baseline(["b", "a", "a", "b"]) == ("a", 0.5)  # ties: by name
    assert constant_baseline([]) == ("", 0.0)
