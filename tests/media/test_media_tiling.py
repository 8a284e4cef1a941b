"""The tile rule against `transformers`' Pillow path: sizes, rows and columns, and every pixel value."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from helpers_media import BIG, OFFICIAL, photo, reference_images
from smolvlm.config import ProcessorConfig
from smolvlm.errors import ParamsError
from smolvlm.media import MediaOptions, fit_to_tiles, normalize, resize_to_longest_edge, split_image, tile_grid

# (width, height): 1:20 to 20:1, one-pixel sides, a single pixel, odd sizes, exact multiples, more than 4k.
SIZES = [
    (100, 2000),
    (2000, 100),
    (1, 300),
    (300, 1),
    (1, 1),
    (640, 427),
    (427, 640),
    (512, 512),
    (513, 511),
    (1000, 333),
    (333, 1000),
    (2048, 2048),
    (1920, 1080),
    (1080, 1920),
    (37, 53),
    (90, 1210),
]
TOLERANCE = 1e-6  # the issue's; both sides hold float32 of values in -1..1, half a step of which is 6e-8


def _compare(width: int, height: int, config: ProcessorConfig, splitting: bool) -> float:
    image = photo(width, height, seed=width * 7 + height)
    expected = reference_images(config, splitting)(image, return_row_col_info=True, return_tensors="np")
    options = MediaOptions(image_splitting=splitting)
    tiled = split_image(image, config, options)
    assert [[tiled.rows]] == expected["rows"]
    assert [[tiled.cols]] == expected["cols"]
    assert tile_grid(width, height, config, options) == (tiled.rows, tiled.cols)
    assert tiled.tiles.shape[0] == max(tiled.rows * tiled.cols + 1, 1)
    pixel_values = normalize(tiled.tiles, config)
    assert pixel_values.shape == expected["pixel_values"][0].shape
    assert pixel_values.dtype == np.float32
    return float(np.abs(pixel_values - expected["pixel_values"][0]).max())


@pytest.mark.parametrize(("width", "height"), SIZES)
@pytest.mark.parametrize("splitting", [True, False])
def test_pixels_equal_the_reference(width: int, height: int, splitting: bool) -> None:
    assert _compare(width, height, OFFICIAL, splitting) <= TOLERANCE


@pytest.mark.parametrize(("width", "height"), [*SIZES[:8], (3, 2)])
def test_pixels_equal_the_reference_with_tiles_of_384(width: int, height: int) -> None:
    assert _compare(width, height, BIG, True) <= TOLERANCE


def test_4k_photo_equals_the_reference() -> None:
    assert _compare(3840, 2160, OFFICIAL, True) <= TOLERANCE


@pytest.mark.parametrize("longest_edge", [512, 600, 1024, 1500, 4096, 5000])
def test_longest_edge_of_any_size_equals_the_reference(longest_edge: int) -> None:
    config = replace(OFFICIAL, longest_edge=longest_edge)
    expected = reference_images(config, True)(photo(200, 77), return_row_col_info=True, return_tensors="np")
    tiled = split_image(photo(200, 77), OFFICIAL, MediaOptions(longest_edge=longest_edge))
    assert [[tiled.rows], [tiled.cols]] == [expected["rows"][0], expected["cols"][0]]
    assert np.abs(normalize(tiled.tiles, OFFICIAL) - expected["pixel_values"][0]).max() <= TOLERANCE


def test_grid_equals_the_reference_for_many_sizes() -> None:
    """Sizes only: 3,000 random pictures, also where the float arithmetic of the aspect ratio lands beside an integer."""
    from helpers_media import reference_images as make

    reference = make(OFFICIAL, True)
    rng = np.random.default_rng(5)
    for _ in range(3000):
        width, height = (int(2 ** rng.uniform(0, 13)) for _ in range(2))
        _, rows, cols = reference.get_number_of_image_patches(height, width)
        ours = tile_grid(width, height, OFFICIAL)
        assert ours == (rows, cols) or (ours == (0, 0) and (rows, cols) == (1, 1)), (width, height)


def test_sizes_by_hand() -> None:
    assert resize_to_longest_edge(427, 640, 2048) == (1366, 2048)
    assert resize_to_longest_edge(640, 427, 2048) == (2048, 1366)
    assert resize_to_longest_edge(1, 300, 2048) == (6, 2048)
    assert resize_to_longest_edge(1, 5000, 2048) == (1, 2048)  # int(0.41) is 0, raised to the least side
    assert resize_to_longest_edge(100, 100, 6000) == (4096, 4096)
    assert fit_to_tiles(1366, 2048, 512) == (1536, 2048)
    assert fit_to_tiles(6, 2048, 512) == (512, 2048)


def test_fit_never_enlarges() -> None:
    fit = MediaOptions(detail="fit")
    assert tile_grid(512, 512, OFFICIAL, fit) == (0, 0)
    assert tile_grid(100, 80, OFFICIAL, fit) == (0, 0)
    assert tile_grid(100, 80, OFFICIAL) == (4, 4)  # what the official rule makes of a thumbnail
    assert tile_grid(640, 427, OFFICIAL, fit) == (2, 2)  # 640 -> 1024 by 683 -> 1024: as the reference at 640
    assert tile_grid(4000, 3000, OFFICIAL, fit) == tile_grid(4000, 3000, OFFICIAL) == (3, 4)
    same = split_image(photo(640, 427), OFFICIAL, fit)
    assert np.array_equal(same.tiles, split_image(photo(640, 427), replace(OFFICIAL, longest_edge=640)).tiles)


def test_low_is_one_tile_and_equals_splitting_off() -> None:
    low = split_image(photo(900, 300), OFFICIAL, MediaOptions(detail="low"))
    off = split_image(photo(900, 300), OFFICIAL, MediaOptions(image_splitting=False))
    assert (low.rows, low.cols, len(low.tiles)) == (0, 0, 1)
    assert np.array_equal(low.tiles, off.tiles)


def test_checkpoint_decides_where_the_caller_is_silent() -> None:
    config = replace(OFFICIAL, do_image_splitting=False)
    assert tile_grid(900, 300, config) == (0, 0)
    assert tile_grid(900, 300, config, MediaOptions(image_splitting=True)) == (2, 4)


def test_longest_edge_below_the_tile_is_an_error_only_while_splitting() -> None:
    with pytest.raises(ParamsError, match="longest_edge=100 is below the tile size 512"):
        split_image(photo(50, 50), OFFICIAL, MediaOptions(longest_edge=100))
    with pytest.raises(ParamsError, match="tile size 512"):
        tile_grid(50, 50, OFFICIAL, MediaOptions(longest_edge=511))
    one = split_image(photo(700, 300), OFFICIAL, MediaOptions(longest_edge=100, image_splitting=False))
    expected = reference_images(replace(OFFICIAL, longest_edge=100), False)(photo(700, 300), return_tensors="np")
    assert np.abs(normalize(one.tiles, OFFICIAL) - expected["pixel_values"][0]).max() <= TOLERANCE


def test_normalise_by_float64_arithmetic() -> None:
    config = replace(OFFICIAL, image_mean=(0.4, 0.5, 0.6), image_std=(0.2, 0.3, 0.4))
    tiles = np.random.default_rng(0).integers(0, 256, (2, 5, 7, 3), np.uint8)
    expected = (tiles.astype(np.float64) * config.rescale_factor - config.image_mean) / config.image_std
    got = normalize(tiles, config)
    assert got.flags.c_contiguous
    assert np.abs(got - expected.transpose(0, 3, 1, 2)).max() <= 2.0**-23 * 4  # one float32 rounding of values below 4
