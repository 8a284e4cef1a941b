"""A video given as its frames: a list of pictures, arrays or paths, or one array of four dimensions."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.config import ProcessorConfig
from smolvlm.errors import SmolVLMError, VideoError
from smolvlm.media.arrays import array_to_image, is_array_like, to_array, to_uint8
from smolvlm.media.images import load_image
from smolvlm.media.sampling import sample_span_indices
from smolvlm.media.sources import SourcePolicy
from smolvlm.options.media import MediaOptions

DEFAULT_FPS = 24.0  # what the reference assumes of frames without metadata


class FrameList:
    """Frames in order of time, `fps` a second. Raises VideoError for an empty list or an array of another shape."""

    def __init__(self, frames: Any, options: MediaOptions, policy: SourcePolicy) -> None:
        self._policy = policy
        self.fps = float(options.fps or DEFAULT_FPS)
        self._array: npt.NDArray[Any] | None = None
        self._items: Sequence[Any] = ()
        if is_array_like(frames):
            self._array = to_array(frames)
            if self._array.ndim != 4 or 0 in self._array.shape:
                raise VideoError(
                    f"an array of shape {self._array.shape} is no video; expected (frames, height, width, 3) or (frames, 3, height, width)."
                )
        else:
            self._items = frames
            if not len(self._items):
                raise VideoError("the list of frames is empty; pass at least one frame.")

    def __len__(self) -> int:
        return len(self._items) if self._array is None else len(self._array)

    @property
    def duration_s(self) -> float:
        """The last frame's time, which is what the reference states for frames without metadata."""
        return (len(self) - 1) / self.fps

    def choose(self, config: ProcessorConfig, options: MediaOptions) -> list[int]:
        """All frames inside `start`..`end` up to the cap, else that many evenly spread; VideoError if none is."""
        first, last = 0, len(self) - 1
        if options.start is not None:
            first = math.ceil((options.start - 1e-6) * self.fps)
        if options.end is not None:
            last = min(last, math.floor((options.end + 1e-6) * self.fps))
        if last < first:
            raise VideoError(
                f"no frame of the list lies between start={options.start} and end={options.end}; at "
                f"{self.fps:g} frames a second it lasts {self.duration_s:.2f} s."
            )
        cap = options.max_frames or config.max_frames
        return sample_span_indices(max(first, 0), last, last - first + 1.0, sample_fps=1.0, max_frames=cap)

    def pixels(self, indices: Sequence[int]) -> Iterator[npt.NDArray[np.uint8]]:
        """uint8 (height, width, 3) of each frame asked for, one at a time."""
        if self._array is not None:
            # One range for all frames: a dark frame of a 0..255 video must not be read as 0..1.
            for frame in to_uint8(self._array[list(indices)]):
                yield np.asarray(array_to_image(frame, self._policy.limits))
            return
        for i in indices:
            try:
                image: Image.Image = load_image(cast(Any, self._items[i]), self._policy)
            except SmolVLMError as error:
                raise type(error)(f"frame {i} of the list: {error}") from None
            yield np.asarray(image)
