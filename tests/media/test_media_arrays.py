"""Arrays and tensors as pictures: shapes, channel order, dtypes and ranges, each by hand."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_media import OFFICIAL, photo, reference_images
from smolvlm.errors import ImageError
from smolvlm.media import MediaOptions, load_image, normalize, split_image

PIXELS = np.asarray(photo(6, 5))


def _array(source: object) -> np.ndarray:
    return np.asarray(load_image(source))  # type: ignore[arg-type]


def test_layouts() -> None:
    assert np.array_equal(_array(PIXELS), PIXELS)
    assert np.array_equal(_array(PIXELS.transpose(2, 0, 1)), PIXELS)
    grey = PIXELS[:, :, 0]
    for source in (grey, grey[:, :, None], grey[None]):
        assert np.array_equal(_array(source), np.repeat(grey[:, :, None], 3, axis=2))
    assert np.array_equal(_array(PIXELS[::-1, ::2]), PIXELS[::-1, ::2])  # negative and wide strides


def test_channels_last_wins() -> None:
    """(1, 1, 3) is a picture of one pixel (CVE-2026-22773), (3, 4, 3) and (3, 3, 3) are read row by row."""
    one = np.array([[[10, 20, 30]]], np.uint8)
    assert load_image(one).size == (1, 1)
    assert load_image(one).getpixel((0, 0)) == (10, 20, 30)
    for shape in ((3, 4, 3), (3, 3, 3), (1, 7, 3)):
        values = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
        assert np.array_equal(_array(values), values)
    assert load_image(np.zeros((3, 1, 1), np.uint8)).size == (1, 3)  # a grey column: channels last


def test_one_pixel_equals_the_reference() -> None:
    one = np.array([[[10, 20, 30]]], np.uint8)
    expected = reference_images(OFFICIAL, False)(load_image(one), return_tensors="np")["pixel_values"][0]
    got = normalize(split_image(load_image(one), OFFICIAL, MediaOptions(detail="low")).tiles, OFFICIAL)
    assert np.abs(got - expected).max() <= 1e-6
    assert abs(float(got[0, 1, 0, 0]) - (20 / 127.5 - 1)) < 1e-6


def test_dtypes() -> None:
    expected = PIXELS.astype(int)
    for source in (
        PIXELS / 255.0,
        (PIXELS / 255).astype(np.float32),
        PIXELS.astype(np.float64),
        PIXELS.astype(np.int64),
        PIXELS.astype(np.int32),
        PIXELS.astype(np.uint16) * 257,
    ):
        assert np.array_equal(_array(source), expected), source.dtype
    assert np.abs(_array((PIXELS / 255).astype(np.float16)).astype(int) - expected).max() <= 1
    assert np.array_equal(_array(PIXELS > 99), (PIXELS > 99) * 255)


def test_alpha_lies_over_white_as_in_the_reference() -> None:
    rgba = np.random.default_rng(1).integers(0, 256, (9, 8, 4), np.uint8)
    expected = reference_images(OFFICIAL, False)(rgba, return_tensors="np")["pixel_values"][0]
    got = normalize(split_image(load_image(rgba), OFFICIAL, MediaOptions(detail="low")).tiles, OFFICIAL)
    assert np.abs(got - expected).max() <= 1e-6


def test_tensors() -> None:
    import torch

    tensor = torch.from_numpy(PIXELS.copy()).permute(2, 0, 1)
    assert np.array_equal(_array(tensor), PIXELS)
    assert np.array_equal(_array((tensor / 255).requires_grad_()), PIXELS)
    with pytest.raises(ImageError, match="cannot be read as an array"):
        load_image(tensor.to(torch.bfloat16))


def test_result_shares_no_memory_with_the_array() -> None:
    source = PIXELS.copy()
    image = load_image(source)
    source[:] = 0
    assert np.array_equal(np.asarray(image), PIXELS)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.zeros((4,), np.uint8), "shape"),
        (np.zeros((2, 4, 4, 3), np.uint8), "shape"),
        (np.zeros((5, 5, 2)), "shape"),
        (np.zeros((0, 4, 3)), "no pixel"),
        (np.zeros((5, 6, 7)), "shape"),
        (np.full((4, 4), np.nan), "NaN"),
        (np.full((4, 4), np.inf), "NaN"),
        (np.full((4, 4), -0.5), "-0.5"),
        (np.full((4, 4), 256), "256"),
        (np.zeros((4, 4), complex), "complex"),
        (np.array([[None, 1]]), "Python objects"),
        (np.array([["a"]]), "is no picture"),
        (np.full((4, 4), -1, np.int8), "-1"),
        (np.zeros((4, 4), "datetime64[s]"), "is no picture"),
    ],
)
def test_bad_arrays(value: np.ndarray, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_image(value)
