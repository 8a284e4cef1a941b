"""NumPy arrays, and whatever converts to them (torch tensors, JAX arrays), -> pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.errors import ImageError
from smolvlm.media.depth import from_float, from_uint16
from smolvlm.media.labels import one_line
from smolvlm.media.limits import Limits
from smolvlm.options.media import background_rgb

_CHANNELS = (1, 3, 4)


def is_array_like(value: object) -> bool:
    """Whether `value` is an array or a tensor: it has `__array__` or `numpy()`. Bytes and pictures are not."""
    if isinstance(value, bytes | bytearray | memoryview | str | Image.Image):
        return False
    return isinstance(value, np.ndarray) or hasattr(value, "__array__") or callable(getattr(value, "numpy", None))


def to_array(value: Any) -> npt.NDArray[Any]:
    """A NumPy array from an array or tensor, wherever it lives. Raises ImageError where that is impossible."""
    try:
        if hasattr(value, "detach"):  # a torch tensor; NumPy cannot read one that has a gradient or sits on a device
            value = value.detach().cpu()
        array = value if isinstance(value, np.ndarray) else np.asarray(value)
    except Exception as error:
        raise ImageError(
            f"a {type(value).__name__} cannot be read as an array ({one_line(error)}); convert it to a uint8 or float32 NumPy array first."
        ) from None
    if array.dtype == object:
        raise ImageError(f"a {type(value).__name__} of Python objects is no picture; pass a uint8 NumPy array.")
    return array


def array_to_image(value: Any, limits: Limits, background: str | None = None) -> Image.Image:
    """An RGB picture from (H, W), (H, W, C) or (C, H, W), C of 1, 3 or 4; channels last wins when both fit.

    uint8 and other integers in 0..255, uint16 scaled from 0..65535, bool, floats in 0..1 or in 0..255. A fourth channel
    is alpha and is laid over `background`, white if None. Raises ImageError for other shapes, types and ranges, and for NaN and infinity.
    """
    array = to_array(value)
    pixels = to_uint8(_channels_last(array))
    height, width, channels = pixels.shape
    if height * width > limits.max_image_pixels:
        raise ImageError(f"an array of shape {array.shape} has more pixels than the limit of {limits.max_image_pixels}; shrink it first.")
    if channels == 1:
        return Image.fromarray(np.repeat(pixels, 3, axis=2))
    if channels == 4:
        pixels = _over(pixels, background_rgb(background or "white"))
    return Image.fromarray(np.ascontiguousarray(pixels))


def _channels_last(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    if array.size == 0:
        raise ImageError(f"an array of shape {array.shape} has no pixel; pass (height, width, 3).")
    if array.ndim == 2:
        return array[:, :, None]
    if array.ndim == 3 and array.shape[2] in _CHANNELS:  # (1, 1, 3) is a picture of one pixel
        return array
    if array.ndim == 3 and array.shape[0] in _CHANNELS:
        return np.moveaxis(array, 0, 2)
    raise ImageError(
        f"an array of shape {array.shape} is no picture; expected (height, width), (height, width, C) or "
        "(C, height, width) with 1, 3 or 4 channels."
    )


def to_uint8(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """Any accepted dtype -> uint8, by range. Raises ImageError where the range does not say how."""
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return array
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return from_uint16(array)
    if kind not in "iuf":
        raise ImageError(f"an array of {array.dtype} is no picture; convert it to uint8 or float32.")
    if kind == "f" and not np.isfinite(array).all():
        raise ImageError("the array holds NaN or infinite values; replace them first.")
    low, high = array.min(), array.max()
    if low < 0 or high > 255:
        raise ImageError(
            f"an array of {array.dtype} with values from {low:g} to {high:g}: expected "
            "0 to 1 or 0 to 255; rescale it first (normalized pixels are no picture)."
        )
    return from_float(array) if kind == "f" else array.astype(np.uint8)


def _over(pixels: npt.NDArray[np.uint8], color: tuple[int, int, int]) -> npt.NDArray[np.uint8]:
    """RGBA -> RGB in float64 with NumPy's rounding, as `transformers.image_transforms.convert_to_rgb` does."""
    alpha = pixels[..., 3:4] / 255
    laid: npt.NDArray[np.uint8] = np.round(alpha * pixels[..., :3] + (1 - alpha) * np.array(color)).astype(np.uint8)
    return laid
