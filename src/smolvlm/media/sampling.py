"""The sampling rule: which frames of a video the model sees.

Source: `SmolVLMVideoProcessor.sample_frames` of `transformers` and `video_sampling` of `preprocessor_config.json`.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from smolvlm.errors import ParamsError, VideoError

_MOST_MOMENTS = 100_000  # more than any context holds


def sample_frame_indices(
    total_num_frames: int, fps: float, duration_s: float, *, sample_fps: float, max_frames: int, skip_s: float = 1.0
) -> list[int]:
    """Indices, ascending and distinct: `round(sample_fps * duration_s)` frames, at most `max_frames`, evenly spread.

    `skip_s` seconds are left out at both ends only when `duration_s - 2 * skip_s > max_frames * sample_fps`; the
    product of a count and a rate is the reference's own comparison, and it is kept.

    Raises VideoError when there is no frame to choose from, ParamsError for rates or caps that are not positive.
    """
    if total_num_frames < 1:
        raise VideoError("the video has no frame to sample; check that the file is complete.")
    if not (sample_fps > 0 and max_frames >= 1 and math.isfinite(sample_fps)):
        raise ParamsError(f"fps={sample_fps} and max_frames={max_frames}: expected positive numbers.")
    desired = max(min(_round(sample_fps * duration_s), max_frames), 1)
    first, last = 0, total_num_frames - 1
    if skip_s > 0 and duration_s - 2 * skip_s > max_frames * sample_fps:
        first = max(0, int(skip_s * fps))
        last = min(int(total_num_frames - skip_s * fps), total_num_frames - 1)
        if first >= last:
            first, last = 0, total_num_frames - 1
    return _spread(first, last, desired)


def sample_times(seconds: npt.NDArray[np.float64], first: int, span_s: float, *, sample_fps: float, max_frames: int) -> list[int]:
    """As many frames as the same rule takes, evenly spread in time: of each moment the frame that is shown then. No end is
    left out: where a rate varies, the last frame is often the one that matters.

    seconds: (frames,) ascending times of the frames numbered `first`, `first` + 1, ... Frames shown at several of the moments
    are taken once.
    """
    count = min(max(min(_round(sample_fps * span_s), max_frames), 1), max(2 * len(seconds), _MOST_MOMENTS))
    moments = np.linspace(seconds[0], seconds[-1], count) + 1e-6
    shown = np.unique(np.searchsorted(seconds, moments, side="right") - 1)
    return [first + int(i) for i in shown]


def sample_span_indices(first: int, last: int, span_s: float, *, sample_fps: float, max_frames: int) -> list[int]:
    """The same rule inside frames `first`..`last` (both included) that span `span_s` seconds; nothing is skipped."""
    if last < first:
        raise VideoError("the asked span holds no frame.")
    if not (sample_fps > 0 and max_frames >= 1 and math.isfinite(sample_fps)):
        raise ParamsError(f"fps={sample_fps} and max_frames={max_frames}: expected positive numbers.")
    return _spread(first, last, max(min(_round(sample_fps * span_s), max_frames), 1))


def _round(frames: float) -> int:
    """Python's rounding (halves to even), as the reference's; a product beyond any cap stays finite."""
    return round(min(frames, 2.0**53))


def _spread(first: int, last: int, count: int) -> list[int]:
    """`count` indices from `first` to `last` by linspace, truncated to integers, repetitions dropped."""
    count = min(count, 2 * (last - first + 1))  # more points than this only repeat; never allocate by a header's word
    return [int(i) for i in np.unique(np.linspace(first, last, count, dtype=int))]
