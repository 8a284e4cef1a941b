"""Many spans of one `Video`: the index is read once, and the work is that of decoding what the spans need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from benchmarks.long_video import repeat
from benchmarks.video_spans import by_one_video, measure, spans_of

from helpers_media import SMALL, make_clip
from smolvlm.media import Video
from smolvlm.media.video_reader import VideoReader


@pytest.fixture
def indexes(monkeypatch: pytest.MonkeyPatch) -> list[VideoReader]:
    """The readers that read an index."""
    found: list[VideoReader] = []
    build_index = VideoReader.build_index

    def counted(self: VideoReader) -> Any:
        found.append(self)
        return build_index(self)

    monkeypatch.setattr(VideoReader, "build_index", counted)
    return found


def test_a_minute_is_indexed_once_and_decodes_what_is_needed(tmp_path: Path, indexes: list[VideoReader]) -> None:
    piece = make_clip(tmp_path / "piece.mp4", 150, options={"g": "50", "preset": "veryfast", "bf": "2"})
    minute = repeat(piece, tmp_path / "minute.mp4", 10, seconds=6)
    report = measure(minute, 20, 2.0, SMALL)  # compares the pictures, too
    assert report["video"]["frames"] == 1500
    assert report["decoded_frames"]["one Video"] <= report["decoded_frames"]["needed"]
    assert report["key_frames"]["count"] == 30
    indexes.clear()
    by_one_video(minute, spans_of(60.0, 20, 2.0), SMALL)
    assert len(indexes) == 1


@pytest.mark.slow
def test_a_hundred_spans_of_an_hour_cost_what_their_decoding_costs(tmp_path: Path, indexes: list[VideoReader]) -> None:
    """The processor's seconds, opening and index included: at most 1.3 times those of the bare decoding."""
    minute = make_clip(tmp_path / "minute.mp4", 1500, size=(640, 352), options={"g": "250", "preset": "veryfast", "bf": "2"})
    hour = repeat(minute, tmp_path / "hour.mp4", 60, seconds=60)
    report = measure(hour, 100, 10.0, SMALL, compare_file=False)
    assert report["video"]["seconds"] == pytest.approx(3600.0)
    assert report["spans"]["frames_taken"] == 1000
    assert report["ratio_cpu"] <= 1.3
    assert report["key_frames"]["count"] == 360
    assert report["key_frames"]["times_real_time"] > 100
    assert len(indexes) == 3  # to see its length, for the spans, for the key frames
    with Video(hour) as video:
        assert [round(frame.time_s) for frame in video.key_frames(1000, 1100, every_s=30)] == [1000, 1030, 1060, 1090]
