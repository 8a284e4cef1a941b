"""A decoded frame -> upright RGB bytes: the display matrix obeyed, HDR brought to the colors of a common screen where that is asked for."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.media.tone_map import UNSPECIFIED, ColorTags, tone_map

Pixels = npt.NDArray[np.uint8]
Matrix: TypeAlias = tuple[int, int, int, int]

IDENTITY: Matrix = (1, 0, 0, 1)


def frame_tags(frame: Any, codec_context: Any) -> ColorTags:
    """The frame's transfer and primaries; what it does not say itself, its container says."""
    transfer, primaries = (int(getattr(frame, name, UNSPECIFIED)) for name in ("color_trc", "color_primaries"))
    if transfer in (0, UNSPECIFIED):
        transfer = int(codec_context.color_trc)
    if primaries in (0, UNSPECIFIED):
        primaries = int(codec_context.color_primaries)
    return ColorTags(transfer, primaries)


def rgb_pixels(frame: Any, matrix: Matrix, tags: ColorTags | None, longest_edge_px: int) -> Pixels:
    """uint8 (height, width, 3), turned as `matrix` says.

    tags: None converts as the reference does. With tags the colors are mapped to BT.709; the frame is then no larger than
    twice `longest_edge_px` on its longest side, since it will be shrunk to that edge anyway.
    """
    if tags is None or tags.name is None:
        return turned(frame.to_ndarray(format="rgb24"), matrix)
    scale = min(1.0, 2 * longest_edge_px / max(frame.width, frame.height))
    size = {"width": max(1, round(frame.width * scale)), "height": max(1, round(frame.height * scale))}
    deep = frame.reformat(**size, format="rgb48le", interpolation="AREA")
    return turned(tone_map(deep.to_ndarray(), tags, "bt1886"), matrix)


def shrunk_frame(frame: Any, matrix: Matrix, longest_edge_px: int) -> Pixels:
    """uint8 (height, width, 3), turned as `matrix` says, its longest side `longest_edge_px`."""
    scale = longest_edge_px / max(frame.width, frame.height)
    width, height = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
    return turned(frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray(), matrix)


def shrunk(pixels: Pixels, longest_edge_px: int) -> Pixels:
    """(height, width, 3) with its longest side `longest_edge_px`; smaller pictures as they are."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    image.thumbnail((longest_edge_px, longest_edge_px))
    return np.asarray(image)


def turn_of(matrix: Matrix) -> int:
    """Degrees, clockwise, by which `matrix` turns; a mirrored picture counts by where its left-to-right axis points."""
    return {(1, 0): 0, (0, 1): 90, (-1, 0): 180, (0, -1): 270}[matrix[:2]]


def display_matrix(frame: Any) -> Matrix:
    """The signs (a, b, c, d) of the frame's display matrix, snapped to the nearest of the eight orientations.

    A stored point (x, y) is shown at (a x + c y, b x + d y). Source: ISO/IEC 14496-12, 6.2.2.
    """
    side_data = frame.side_data.get("DISPLAYMATRIX")
    if side_data is None or len(bytes(side_data)) < 36:
        return IDENTITY
    values = np.frombuffer(bytes(side_data), np.int32)
    a, b, c, d = (int(values[i]) for i in (0, 1, 3, 4))
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return (-1 if a < 0 else 1, 0, 0, -1 if d < 0 else 1)
    return (0, -1 if b < 0 else 1, -1 if c < 0 else 1, 0)


def turned(pixels: Pixels, matrix: Matrix) -> Pixels:
    """(height, width, 3) as it is to be shown."""
    a, b, c, d = matrix
    if a == 0:  # rows become columns
        pixels = pixels.swapaxes(0, 1)
    down, right = (d, a) if a else (b, c)
    return pixels[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]
