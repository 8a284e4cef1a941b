"""What a camera adds to a drawn scene: uneven light, blur, noise, a resize."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from smolvlm.synth.sample import Pixels


def finish(rng: np.random.Generator, canvas: Image.Image, *, strength: float = 1.0) -> Pixels:
    """The canvas as pixels after mild random light, blur and noise; half of all pictures stay as drawn."""
    return Camera(rng, strength).shoot(canvas)


class Camera:
    """One camera's faults, drawn once: the frames of a clip share them, but for the noise."""

    def __init__(self, rng: np.random.Generator, strength: float = 1.0) -> None:
        self._rng = rng
        clean = rng.random() < 0.5
        self._light: npt.NDArray[np.float32] | None = None
        if not clean and rng.random() < 0.6:
            low, high = 1 - 0.25 * strength * rng.random(), 1 + 0.12 * strength * rng.random()
            ramp = np.linspace(low, high, 64, dtype=np.float32)
            self._light = ramp[:: int(rng.choice((1, -1)))]
        self._across = bool(rng.random() < 0.5)
        self._blur_px = 0.0 if clean or rng.random() < 0.5 else float(rng.uniform(0.2, 0.7)) * strength
        self._noise = 0.0 if clean or rng.random() < 0.5 else float(rng.uniform(1, 7)) * strength

    def shoot(self, canvas: Image.Image) -> Pixels:
        """RGB pixels (height, width, 3) of the canvas as this camera sees it."""
        if self._blur_px:
            canvas = canvas.filter(ImageFilter.GaussianBlur(self._blur_px * canvas.width / 160))
        pixels = np.asarray(canvas, np.uint8)
        if self._light is None and not self._noise:
            return pixels
        values = pixels.astype(np.float32)
        if self._light is not None:
            length = values.shape[1 if self._across else 0]
            ramp = np.interp(np.linspace(0, 1, length), np.linspace(0, 1, 64), self._light).astype(np.float32)
            values *= ramp[None, :, None] if self._across else ramp[:, None, None]
        if self._noise:
            values += self._rng.normal(0, self._noise, (*values.shape[:2], 1)).astype(np.float32)
        return np.clip(values, 0, 255).astype(np.uint8)
