"""Pictures and arrays of more than 8 bits -> 8 bits, by scaling. Pillow's own `convert` clips most of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.errors import ImageError


def from_uint16(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """0..65535 -> 0..255, rounded to the nearest: 257 levels of 16 bits are one of 8."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def from_float(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Floats in 0..1, or beyond 1 in 0..255, -> 0..255 rounded. The caller has checked the range."""
    scale = 255.0 if values.max() <= 1 else 1.0
    return np.rint(values.astype(np.float64) * scale).astype(np.uint8)


def _stretch(values: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Whatever range, laid over 0..255: measurements stored as pictures have no white of their own."""
    low, high = float(values.min()), float(values.max())
    scaled = (values.astype(np.float64) - low) * (255.0 / (high - low) if high > low else 0.0)
    return np.rint(scaled).astype(np.uint8)


def eight_bit(image: Image.Image) -> Image.Image:
    """`image` itself if its mode has 8 bits; else an "L" picture scaled from 16-bit, 32-bit or float values.

    I;16 is 0..65535; I the same unless its values lie outside; F is 0..1 or 0..255. Values outside are stretched from
    their least to their largest. Raises ImageError for NaN and infinity.
    """
    if not (image.mode.startswith("I") or image.mode == "F"):
        return image
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray(from_uint16(values))
    if not np.isfinite(values).all():
        raise ImageError("the picture holds NaN or infinite values; replace them first.")
    low, high = float(values.min()), float(values.max())
    if image.mode == "F":
        return Image.fromarray(from_float(values) if low >= 0 and high <= 255 else _stretch(values))
    return Image.fromarray(from_uint16(values) if low >= 0 and high <= 65535 else _stretch(values))
