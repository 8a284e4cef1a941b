"""What is known of a video, and the frames that were sampled from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.config import ProcessorConfig
from smolvlm.media.tiling import MAX_EDGE_PX, resize_to_longest_edge

OnFrame: TypeAlias = Callable[[int, int], None]
Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a whole video. `fps` in frames a second, sizes in pixels as stored, before rotation.

    For MP4 these are the reference's `VideoMetadata`: frames by the header, the average rate, and their quotient as the
    duration. Where a container does not say, they are measured from its packets.
    """

    total_num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    codec: str
    variable_frame_rate: bool


@dataclass(frozen=True, eq=False)
class SampledVideo:
    """The sampled frames: uint8 (frames, side, side, 3), upright; `timestamps_s` and `indices` have one entry a frame.

    `duration_s` is the whole video's, which the prompt states also when only a span was sampled. `decoded_frames`
    counts what the decoder produced for them; 0 for a list of frames. `warnings` are sentences for whoever asked: what a
    look at the video alone would not lead one to expect.
    """

    frames: Pixels
    timestamps_s: tuple[float, ...]
    duration_s: float
    indices: tuple[int, ...]
    info: VideoInfo
    decoded_frames: int
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class VideoFrame:
    """One frame: its number and its time in seconds from the first one; pixels uint8 (height, width, 3), upright."""

    index: int
    time_s: float
    pixels: Pixels


def square_frame(pixels: Pixels, config: ProcessorConfig) -> Pixels:
    """uint8 (height, width, 3) -> (side, side, 3): longest edge to `video_longest_edge`, then squashed to a tile."""
    resample = Image.Resampling(config.resample)
    height, width, _ = pixels.shape
    height, width = resize_to_longest_edge(height, width, min(config.video_longest_edge, MAX_EDGE_PX))
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), resample=resample)
    return np.asarray(image.resize((config.tile_size, config.tile_size), resample=resample))
