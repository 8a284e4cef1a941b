"""The motion gate: a small grey picture against the running average of those before. It costs almost nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from smolvlm.apps.camera.rules import MotionSettings, Polygon

WIDTH, HEIGHT = 96, 54  # of the small grey picture
_SLOW_S, _QUICK_S = 20.0, 1.0  # how fast the average follows: where nothing moves, and where something has stayed
_LEARN_S = 2.0  # after the start and after a change of the light of the whole picture, nothing is motion
_WHOLE = 0.7  # more of the picture than this at once is the light, or another camera

Grey = npt.NDArray[np.uint8]
Mask = npt.NDArray[np.bool_]


def area_mask(polygons: Sequence[Polygon], width: int = WIDTH, height: int = HEIGHT) -> Mask:
    """True inside any of the polygons."""
    picture = Image.new("1", (width, height))
    draw = ImageDraw.Draw(picture)
    for corners in polygons:
        draw.polygon([(x * width, y * height) for x, y in corners], fill=1)
    return np.asarray(picture, dtype=np.bool_)


@dataclass(frozen=True)
class Motion:
    """What the gate saw in one frame: the share of the picture that moved, and where."""

    share: float
    moving: bool
    where: Mask


class MotionGate:
    """One for a stream; `see` takes each frame's small grey picture, (HEIGHT, WIDTH), with its time."""

    def __init__(self, settings: MotionSettings) -> None:
        self._settings = settings
        self._seen: Mask = ~area_mask(settings.masks)
        self._count = max(1, int(self._seen.sum()))
        self._average: npt.NDArray[np.float32] | None = None
        self._last_s = 0.0
        self._learn_until_s = 0.0

    def see(self, grey: Grey, time_s: float) -> Motion:
        """Whether something moves."""
        picture = _blurred(grey)
        if self._average is None:
            self._average, self._last_s, self._learn_until_s = picture, time_s, time_s + _LEARN_S
        passed_s = min(max(time_s - self._last_s, 0.0), 5.0)
        self._last_s = time_s
        difference = np.abs(picture - self._average)
        changed = (difference > self._settings.threshold) & self._seen
        share = float(changed.sum()) / self._count
        learning = time_s < self._learn_until_s
        if share > _WHOLE:
            self._learn_until_s = time_s + _LEARN_S
            self._average = picture
            learning = True
        # What has come to stay becomes background within seconds, so that the next change is seen for itself.
        rates = np.where(changed, np.float32(1 - np.exp(-passed_s / _QUICK_S)), np.float32(1 - np.exp(-passed_s / _SLOW_S)))
        self._average = self._average + rates * (picture - self._average)
        return Motion(share, share >= max(self._settings.area, 1 / self._count) and not learning, changed)


def _blurred(grey: Grey) -> npt.NDArray[np.float32]:
    """A 3x3 mean."""
    padded = np.pad(grey.astype(np.float32), 1, mode="edge")
    rows = padded[:-2] + padded[1:-1] + padded[2:]
    mean: npt.NDArray[np.float32] = (rows[:, :-2] + rows[:, 1:-1] + rows[:, 2:]) / np.float32(9)
    return mean
