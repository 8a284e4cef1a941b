"""What a generator returns: pictures or a clip, questions with exact answers, and where everything is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Split: TypeAlias = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")
Pixels: TypeAlias = npt.NDArray[np.uint8]  # (height, width, 3), RGB


@dataclass(frozen=True)
class Question:
    """`task` names the row of the benchmark; `answer` is what a model should say, exactly."""

    task: str
    text: str
    answer: str


@dataclass(frozen=True)
class ItemTruth:
    """A thing in a frame. `colour` is None for objects, which have their own; the box (x0, y0, x1, y1) is in fractions
    of the frame."""

    name: str
    colour: str | None
    box: tuple[float, float, float, float]

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2

    @property
    def phrase(self) -> str:
        """As in "red star", or "dog"."""
        return self.name if self.colour is None else f"{self.colour} {self.name}"


@dataclass(frozen=True)
class CharacterTruth:
    """One printed letter or digit; its centre in fractions of the frame."""

    character: str
    centre: tuple[float, float]


@dataclass(frozen=True)
class FrameTruth:
    """Everything that a frame shows: the target of the dense losses."""

    items: tuple[ItemTruth, ...] = ()
    characters: tuple[CharacterTruth, ...] = ()


@dataclass(frozen=True, eq=False)
class Sample:
    """Pictures ("image", "images") or a clip's frames in order ("video") with all questions about them.

    timestamps_s and duration_s (seconds) belong to clips. `truths` has one entry a frame, or none where a generator
    keeps no dense truth.
    """

    kind: Literal["image", "images", "video"]
    frames: tuple[Pixels, ...]
    questions: tuple[Question, ...]
    timestamps_s: tuple[float, ...] = ()
    duration_s: float | None = None
    truths: tuple[FrameTruth, ...] = ()
