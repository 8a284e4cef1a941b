"""The tile rule: which sizes a picture is scaled to and how it is cut, pixel for pixel as the reference does it.

Source: `SmolVLMImageProcessorPil` of `transformers` and `preprocessor_config.json` (`size`, `max_image_size`,
`do_image_splitting`, `resample`). Every resize goes through 8-bit pixels, so their order is part of the rule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.config import ProcessorConfig
from smolvlm.errors import ParamsError
from smolvlm.options.media import MediaOptions

MAX_EDGE_PX = 4096  # the reference's absolute cap on a side

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class TiledImage:
    """One picture as the vision encoder reads it: uint8 (tiles, side, side, 3), row-major, the whole picture last.

    `rows` and `cols` are 0 for a picture that is not split; then `tiles` has one member.
    """

    tiles: Pixels
    rows: int
    cols: int


@dataclass(frozen=True)
class _Plan:
    """Sizes (height, width) in pixels that a picture goes through, and whether it is cut at the end."""

    scaled: tuple[int, int]
    fitted: tuple[int, int]
    rows: int
    cols: int


def resize_to_longest_edge(height: int, width: int, longest_edge: int) -> tuple[int, int]:
    """(height, width) with the longest side at `longest_edge` px, up or down, and the other even, all at most 4096.

    The float arithmetic is the reference's, operation by operation: `int(width / (width / height))` may be one less
    than `height`.
    """
    aspect_ratio = width / height
    if width >= height:
        width, height = longest_edge, int(longest_edge / aspect_ratio)
        height += height % 2
    else:
        height, width = longest_edge, int(longest_edge * aspect_ratio)
        width += width % 2
    height, width = max(height, 1), max(width, 1)

    aspect_ratio = width / height
    if width >= height and width > MAX_EDGE_PX:
        width, height = MAX_EDGE_PX, int(MAX_EDGE_PX / aspect_ratio)
    elif height > width and height > MAX_EDGE_PX:
        height, width = MAX_EDGE_PX, int(MAX_EDGE_PX * aspect_ratio)
    return max(height, 1), max(width, 1)


def fit_to_tiles(height: int, width: int, tile: int) -> tuple[int, int]:
    """(height, width) with both sides raised to a multiple of `tile` px, the short one by the aspect ratio."""
    aspect_ratio = width / height
    if width >= height:
        width = math.ceil(width / tile) * tile
        height = math.ceil(int(width / aspect_ratio) / tile) * tile
    else:
        height = math.ceil(height / tile) * tile
        width = math.ceil(int(height * aspect_ratio) / tile) * tile
    # A float quotient just below 1 would give a side of 0; the reference fails there, one tile is what it means.
    return max(height, tile), max(width, tile)


def tile_grid(width: int, height: int, config: ProcessorConfig, options: MediaOptions | None = None) -> tuple[int, int]:
    """(rows, cols) that a picture of this size is cut into, (0, 0) when it is one tile; no pixels are touched.

    Raises ParamsError for a `longest_edge` below the tile size while splitting is on.
    """
    plan = _plan(height, width, config, options or MediaOptions())
    return plan.rows, plan.cols


def split_image(image: Image.Image, config: ProcessorConfig, options: MediaOptions | None = None) -> TiledImage:
    """Scale an RGB picture and cut it into tiles of `config.tile_size` px, as `preprocessor_config.json` says.

    Raises ParamsError for a `longest_edge` below the tile size while splitting is on.
    """
    if image.mode != "RGB":
        image = image.convert("RGB")
    side = config.tile_size
    resample = Image.Resampling(config.resample)
    plan = _plan(image.height, image.width, config, options or MediaOptions())
    image = _resize(image, plan.scaled, resample)
    if not plan.rows:
        return TiledImage(np.asarray(_resize(image, (side, side), resample))[None], 0, 0)
    image = _resize(image, plan.fitted, resample)
    grid = np.asarray(image).reshape(plan.rows, side, plan.cols, side, 3).swapaxes(1, 2)
    tiles = np.empty((plan.rows * plan.cols + 1, side, side, 3), np.uint8)
    tiles[:-1].reshape(plan.rows, plan.cols, side, side, 3)[:] = grid
    # The whole picture is made from the fitted one, not from the original: its aspect is already the grid's.
    tiles[-1] = np.asarray(_resize(image, (side, side), resample))
    return TiledImage(tiles, plan.rows, plan.cols)


def _plan(height: int, width: int, config: ProcessorConfig, options: MediaOptions) -> _Plan:
    tile = config.tile_size
    splitting = config.do_image_splitting if options.image_splitting is None else options.image_splitting
    splitting = splitting and options.detail != "low"
    longest_edge = options.longest_edge or config.longest_edge
    if splitting and options.longest_edge is not None and options.longest_edge < tile:
        raise ParamsError(
            f"longest_edge={options.longest_edge} is below the tile size {tile}; pass at least {tile}, or image_splitting=False."
        )
    if options.detail == "fit":
        longest_edge = min(longest_edge, max(height, width))
        splitting = splitting and max(height, width) > tile
    scaled = resize_to_longest_edge(height, width, longest_edge)
    fitted = fit_to_tiles(*scaled, tile)
    if not splitting or fitted == (tile, tile):
        return _Plan(scaled, (tile, tile), 0, 0)
    return _Plan(scaled, fitted, fitted[0] // tile, fitted[1] // tile)


def _resize(image: Image.Image, size: tuple[int, int], resample: Image.Resampling) -> Image.Image:
    height, width = size
    return image.resize((width, height), resample=resample)
