"""Frames taken evenly in time, the warning where they are not, and what a span between two frames gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from helpers_media import OFFICIAL, crowded_clip, decode_all, make_clip, read_number
from smolvlm.errors import ParamsError, VideoError
from smolvlm.media import MediaOptions, probe_video, sample_video
from smolvlm.media.sampling import sample_frame_indices, sample_times

TIME = MediaOptions(sampling="time", max_frames=8)


def test_moments_by_hand() -> None:
    """Frames at 0, 1, 2, 3 and 30 s; four moments 0, 10, 20, 30 s: at 10 and 20 s the frame of 3 s is still shown."""
    seconds = np.array([0.0, 1.0, 2.0, 3.0, 30.0])
    assert sample_times(seconds, 0, 31.0, sample_fps=1, max_frames=4) == [0, 3, 4]
    assert sample_times(seconds[1:], 1, 30.0, sample_fps=1, max_frames=2) == [1, 4]
    assert sample_times(seconds, 0, 31.0, sample_fps=1, max_frames=1) == [0]
    assert sample_times(seconds, 0, 31.0, sample_fps=100, max_frames=64) == [0, 1, 2, 3, 4]


def test_both_rules_are_one_at_a_constant_rate() -> None:
    for total in (1, 2, 7, 100, 2500):
        for cap in (1, 3, 8, 64):
            by_number = sample_frame_indices(total, 25, total / 25, sample_fps=1, max_frames=cap, skip_s=0)
            by_time = sample_times(np.arange(total) / 25, 0, total / 25, sample_fps=1, max_frames=cap)
            assert len(by_time) == len(by_number)
            assert np.abs(np.subtract(by_time, by_number)).max() <= 1  # a moment that falls on a frame's beginning


def test_a_crowded_clip(tmp_path: Path) -> None:
    """48 frames in the first 1.9 s, then one each 10 s up to a minute."""
    path = crowded_clip(tmp_path / "crowded.mp4")
    official = sample_video(path, OFFICIAL, MediaOptions(max_frames=8))
    assert official.indices == (0, 7, 15, 22, 30, 37, 45, 53)  # linspace(0, 53, 8)
    assert official.timestamps_s[-2:] == (1.8, 60.0)
    assert len(official.warnings) == 1
    assert "6 of the 8 frames sampled lie within 1.5 s of 60.0 s" in official.warnings[0]
    assert 'sampling="time"' in official.warnings[0]
    in_time = sample_video(path, OFFICIAL, TIME)
    assert in_time.timestamps_s == pytest.approx((0.0, 1.88, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0))  # of 0, 8.57, ...
    assert [read_number(frame) for frame in in_time.frames] == list(in_time.indices) == [0, 47, 48, 49, 50, 51, 52, 53]
    assert in_time.warnings == ()
    assert in_time.duration_s == official.duration_s


def test_spans_in_time(tmp_path: Path) -> None:
    path = crowded_clip(tmp_path / "crowded.mp4")
    span = sample_video(path, OFFICIAL, MediaOptions(sampling="time", start=1.0, end=31.0, max_frames=4))
    assert span.timestamps_s == (1.0, 10.0, 20.0, 30.0)  # 1, 10.67, 20.33, 30
    between = sample_video(path, OFFICIAL, MediaOptions(start=12.0, end=18.0))
    assert between.timestamps_s == (10.0,)  # no frame begins in the span; this one is shown through all of it
    assert sample_video(path, OFFICIAL, MediaOptions(start=59.0)).timestamps_s == (60.0,)
    with pytest.raises(VideoError, match="start=61 is past its end"):
        sample_video(path, OFFICIAL, MediaOptions(start=61.0))


def test_no_warning_where_nothing_is_crowded(clips: dict[str, Path], tmp_path: Path) -> None:
    for name in ("cfr.mp4", "ntsc.mp4", "vfr.mp4", "vfr.mkv", "moving.gif"):
        assert sample_video(clips[name], OFFICIAL).warnings == (), name
    regular = make_clip(tmp_path / "cfr.mp4", 50)
    assert sample_video(regular, OFFICIAL, TIME).indices == sample_video(regular, OFFICIAL, MediaOptions(max_frames=8)).indices


def test_every_container_lasts_longer_than_its_last_frame(clips: dict[str, Path]) -> None:
    """And no longer than a frame more than it, where the rate is constant."""
    for name, path in clips.items():
        info = probe_video(path)
        _, times = decode_all(path)
        assert times[-1] < info.duration_s, name
        if not info.variable_frame_rate and name != "raw.h264":  # a raw stream has no times
            assert info.duration_s - times[-1] < 2.01 / info.fps, name


def test_an_unknown_rule_is_refused() -> None:
    with pytest.raises(ParamsError, match="sampling='even': expected one of official, time"):
        MediaOptions(sampling="even")  # type: ignore[arg-type]
