"""One frame of several is never looked at in silence; the rate that the note names gives all of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from PIL import Image

from helpers_media import SMALL, encoded, numbered_frame
from smolvlm.media import MediaOptions, sample_video

CASES = [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("AVIF", {"quality": 90})]


def _rate(video) -> float:
    assert len(video.warnings) == 1
    assert re.search(r"of the \d+ frames in [\d.]+ s only one, at [\d.]+ s, was looked at", video.warnings[0])
    return float(re.search(r"fps=([\d.]+) for all", video.warnings[0])[1])


@pytest.mark.parametrize(("format", "settings"), CASES)
def test_a_short_animation(format: str, settings: dict[str, object]) -> None:
    frames = [Image.fromarray(numbered_frame(i)) for i in range(8)]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100, **settings)
    video = sample_video(data, SMALL)
    assert len(video.frames) == 1
    assert "of the 8 frames in 0.80 s" in video.warnings[0]
    assert len(sample_video(data, SMALL, MediaOptions(fps=_rate(video))).frames) == 8
    assert sample_video(data, SMALL, MediaOptions(max_frames=1)).warnings == ()  # asked for


def test_a_span_of_a_video(clips: dict[str, Path]) -> None:
    for name in ("cfr.mp4", "vfr.mkv", "vp9.webm"):
        video = sample_video(clips[name], SMALL, MediaOptions(start=0.4, end=0.8))
        assert len(video.frames) == 1
        many = sample_video(clips[name], SMALL, MediaOptions(start=0.4, end=0.8, fps=_rate(video)))
        assert len(many.frames) == int(re.search(r"of the (\d+)", video.warnings[0])[1])
        assert many.warnings == ()


def test_where_there_is_nothing_more(clips: dict[str, Path]) -> None:
    assert sample_video(clips["single.mp4"], SMALL).warnings == ()
    assert sample_video(clips["cfr.mp4"], SMALL, MediaOptions(start=1.0, end=1.0)).warnings == ()
    assert sample_video(clips["cfr.mp4"], SMALL).warnings == ()


def test_an_end_of_zero(clips: dict[str, Path]) -> None:
    video = sample_video(clips["cfr.mp4"], SMALL, MediaOptions(end=0))
    assert video.indices == (0,)
    assert video.warnings == ("end=0 leaves its first frame only; leave it out to go on to the end.",)
    assert sample_video(clips["cfr.mp4"], SMALL, MediaOptions(start=0, end=0)).warnings == ()  # meant
