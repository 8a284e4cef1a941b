"""The sampling rule against the reference's `sample_frames`, and spans by hand."""

from __future__ import annotations

import numpy as np
import pytest

from helpers_media import OFFICIAL, reference_video_utils, reference_videos
from smolvlm.errors import ParamsError, VideoError
from smolvlm.media import sample_frame_indices, sample_span_indices


def test_indices_equal_the_reference_over_random_videos() -> None:
    reference, metadata = reference_videos(OFFICIAL), reference_video_utils().VideoMetadata
    rng = np.random.default_rng(11)
    skipped = 0
    for n in range(1500):
        rate = float(rng.choice([1, 5, 10, 15, 23.976, 24, 25, 29.97, 30, 50, 59.94, 60, 120]))
        total = int(2 ** rng.uniform(0, 17))
        duration = total / rate if n % 3 else float(rng.uniform(0.01, 4000))
        sample_fps = float(rng.choice([0.1, 0.5, 1, 1, 1, 2, 7.5, 30]))
        max_frames = int(rng.choice([1, 2, 3, 8, 16, 32, 64, 100, 256]))
        skip = float(rng.choice([0, 1, 1, 1, 2.5]))
        expected = reference.sample_frames(
            metadata(total_num_frames=total, fps=rate, duration=duration), num_frames=max_frames, fps=sample_fps, skip_secs=skip
        )
        got = sample_frame_indices(total, rate, duration, sample_fps=sample_fps, max_frames=max_frames, skip_s=skip)
        assert got == expected.tolist(), (total, rate, duration, sample_fps, max_frames, skip)
        skipped += got[0] > 0
    assert skipped > 100, "the random videos reach the rule that skips a second"


def test_by_hand() -> None:
    assert sample_frame_indices(132, 25, 5.28, sample_fps=1, max_frames=64) == [0, 32, 65, 98, 131]
    assert sample_frame_indices(10, 25, 0.4, sample_fps=1, max_frames=64) == [0]
    assert sample_frame_indices(1, 25, 0.04, sample_fps=30, max_frames=64) == [0]
    assert sample_frame_indices(3, 1, 3, sample_fps=100, max_frames=64) == [0, 1, 2]  # more asked than there are
    hour = sample_frame_indices(108_000, 30, 3600, sample_fps=1, max_frames=64)
    assert (len(hour), hour[0], hour[-1]) == (64, 30, 107_970)  # one second skipped at both ends
    assert len(sample_frame_indices(17_000_000, 1e9, 0.017, sample_fps=1e12, max_frames=64)) == 64


def test_spans_skip_nothing() -> None:
    assert sample_span_indices(0, 107_999, 3600, sample_fps=1, max_frames=2) == [0, 107_999]
    assert sample_span_indices(50, 100, 2.0, sample_fps=2, max_frames=64) == [50, 66, 83, 100]
    assert sample_span_indices(7, 7, 0.0, sample_fps=1, max_frames=64) == [7]
    with pytest.raises(VideoError):
        sample_span_indices(5, 4, 1.0, sample_fps=1, max_frames=64)


def test_bad_numbers() -> None:
    with pytest.raises(VideoError, match="no frame"):
        sample_frame_indices(0, 25, 0, sample_fps=1, max_frames=64)
    for rate, cap in ((0, 64), (-1, 64), (float("nan"), 64), (float("inf"), 64), (1, 0)):
        with pytest.raises(ParamsError):
            sample_frame_indices(10, 25, 1, sample_fps=rate, max_frames=cap)
