"""Each option has a range, and a sentence for what lies outside it."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from smolvlm.errors import ParamsError
from smolvlm.media import Limits, MediaOptions

NAN = float("nan")


@pytest.mark.parametrize(
    "bad",
    [
        {"detail": "high"},
        {"detail": None},
        {"image_splitting": 1},
        {"image_splitting": "no"},
        {"longest_edge": 0},
        {"longest_edge": -512},
        {"longest_edge": 512.0},
        {"longest_edge": True},
        {"fps": 0},
        {"fps": -1.0},
        {"fps": NAN},
        {"fps": float("inf")},
        {"fps": "1"},
        {"fps": True},
        {"max_frames": 0},
        {"max_frames": 2.5},
        {"start": -1},
        {"end": -0.1},
        {"start": NAN},
        {"end": "3"},
        {"start": 5, "end": 4},
        {"end": float("inf")},
    ],
)
def test_bad_options(bad: dict[str, Any]) -> None:
    with pytest.raises(ParamsError) as caught:
        MediaOptions(**bad)
    name = "end" if bad.keys() >= {"start", "end"} else next(iter(bad))
    assert str(caught.value).startswith(f"{name}=")
    assert "expected" in str(caught.value) or "pass an end" in str(caught.value)


def test_good_options() -> None:
    options = MediaOptions(detail="fit", image_splitting=False, longest_edge=1024, fps=0.5, max_frames=8, start=1, end=1)
    assert dataclasses.replace(options, end=2.5).end == 2.5
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.fps = 2  # type: ignore[misc]
    with pytest.raises(TypeError):
        MediaOptions("fit")  # type: ignore[misc]


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Limits)])
def test_limits_are_positive(name: str) -> None:
    for value in (-1, NAN, "9", None):
        with pytest.raises(ParamsError, match=name):
            Limits(**{name: value})
