"""Timelines, read back by OpenTimelineIO: the same moments at the same frames."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from fractions import Fraction
from pathlib import Path

import pytest

from smolvlm.apps.videos.playlists import Moment
from smolvlm.apps.videos.timelines import rate_of, timeline
from smolvlm.errors import ParamsError

otio = pytest.importorskip("opentimelineio", reason="timelines come with the extra `video`")
NAMES = ["a goal & <b>more</b>", "x" * 90, "进球"]


@pytest.mark.parametrize("suffix", [".otio", ".edl", ".fcpxml"])
@pytest.mark.parametrize("fps", [24000 / 1001, 25, 30000 / 1001, 30, 50, 60000 / 1001])
def test_times_come_back(tmp_path: Path, suffix: str, fps: float) -> None:
    frames = [(33, 158), (158, 200), (1111, 1112)]
    film = tmp_path / "my film #1.mp4"
    moments = [Moment(film, a / fps, b / fps, name, "why") for (a, b), name in zip(frames, NAMES, strict=True)]
    out = tmp_path / f"out{suffix}"
    out.write_text(timeline(moments, out, fps=fps, duration_s=60), encoding="utf-8")
    expected = [pytest.approx((a / fps, b / fps), abs=1e-4) for a, b in frames]
    if suffix == ".fcpxml" and fps % 1:  # the adapter (1.0.0) reads 60000/1001 as 59: the file itself is looked at
        clips = ET.parse(out).getroot().findall(".//spine/clip")
        assert [(seconds(c, "start"), seconds(c, "start") + seconds(c, "duration")) for c in clips] == expected
        assert 1 / seconds(ET.parse(out).getroot().find(".//format"), "frameDuration") == pytest.approx(fps, abs=1e-6)
        return
    read = otio.adapters.read_from_file(str(out), **({"rate": fps} if suffix == ".edl" else {}))
    if not isinstance(read, otio.schema.Timeline):
        read = next(iter(read.find_children(descended_from_type=otio.schema.Timeline))) if hasattr(read, "find_children") else read[0]
    clips = list(read.video_tracks()[0].find_clips())
    found = [(c.source_range.start_time.to_seconds(), c.source_range.end_time_exclusive().to_seconds()) for c in clips]
    assert found == expected


def seconds(element: ET.Element | None, name: str) -> float:
    """An attribute such as `1001/30000s`."""
    assert element is not None
    return float(Fraction(element.attrib[name].removesuffix("s")))


def test_rates_that_timecode_does_not_know() -> None:
    assert rate_of(10, "cmx_3600") == 30, "each frame of 10 a second is three of 30"
    assert rate_of(15, "fcpx_xml") == 30
    assert rate_of(12.5, "cmx_3600") == 25
    assert rate_of(29.97, "cmx_3600") == pytest.approx(30000 / 1001)
    assert rate_of(17.3) == 17.3


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"\.otio, \.edl, \.fcpxml"):
        timeline([], tmp_path / "x.xml", fps=25, duration_s=1)
