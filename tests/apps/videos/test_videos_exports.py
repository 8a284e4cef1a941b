"""What other programs read of an index: read back by libav."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import av
import pytest
from PIL import Image

from helpers_videos import Programme
from smolvlm.apps.videos.exports import Cue, chapters, cues, export, ffmetadata, names, srt, webvtt, youtube
from smolvlm.apps.videos.stored import windows_of
from smolvlm.errors import ParamsError, SourceError

MARKUP = [Cue(0, 1.5, "a <b>&amp;</b> --> b"), Cue(3661.25, 3662, "= ; # \\ end")]


def read_back(path: Path) -> list[tuple[float, float, str]]:
    """libav's own demuxers; a text's markup is left out of the comparison."""
    found = []
    with av.open(str(path)) as container:
        for packet in container.demux(container.streams.subtitles[0]):
            if packet.size and packet.pts is not None:
                start = float(packet.pts * packet.time_base)
                found.append((start, start + float(packet.duration * packet.time_base), bytes(packet).decode()))
    return found


@pytest.mark.parametrize(("write", "suffix"), [(webvtt, "vtt"), (srt, "srt")])
def test_subtitles_are_read_back_by_libav(tmp_path: Path, write, suffix: str) -> None:
    path = tmp_path / f"x.{suffix}"
    path.write_text(write(MARKUP), encoding="utf-8")
    back = read_back(path)
    assert [(start, end) for start, end, _ in back] == [(0, 1.5), (3661.25, 3662)]
    if suffix == "vtt":
        assert back[0][2] == "a &lt;b&gt;&amp;amp;&lt;/b&gt; --&gt; b"


def test_ffmetadata_is_read_back_by_libav(tmp_path: Path) -> None:
    path = tmp_path / "x.ffmetadata.txt"
    path.write_text(ffmetadata(MARKUP), encoding="utf-8")
    with av.open(str(path), format="ffmetadata") as container:
        found = container.chapters()
    assert [(c["start"] * float(c["time_base"]), c["metadata"]["title"]) for c in found] == [(0, MARKUP[0].text), (3661.25, MARKUP[1].text)]


def test_youtube_begins_at_zero() -> None:
    assert youtube([Cue(0.5, 3, "one"), Cue(65, 70, "two"), Cue(3725, 4000, "three")]) == "0:00 one\n1:05 two\n1:02:05 three\n"


def test_cues_and_chapters_do_not_overlap(programme: Programme) -> None:
    windows = windows_of(programme.library, [programme.indexed.run_id])
    for made in (cues(windows), chapters(windows)):
        assert all(a.end_s <= b.start_s for a, b in pairwise(made))
        assert made[-1].end_s == pytest.approx(programme.indexed.duration_s, abs=0.2)
    assert all(b.start_s - a.start_s >= 10 for a, b in pairwise(chapters(windows)))


def test_a_storyboards_parts_are_the_frames(programme: Programme, tmp_path: Path) -> None:
    windows = windows_of(programme.library, [programme.indexed.run_id])
    sprite, vtt = export(windows, programme.path, "storyboard", tmp_path / "story & board.vtt")
    parts = re.findall(r"story%20%26%20board.jpg#xywh=(\d+),(\d+),(\d+),(\d+)", vtt.read_text().replace("&amp;", "&"))
    with Image.open(sprite) as sheet:
        assert len(parts) == pytest.approx(programme.indexed.duration_s, abs=1)
        assert all(int(x) + int(w) <= sheet.width and int(y) + int(h) <= sheet.height for x, y, w, h in parts)


def test_every_format_is_written_once(programme: Programme, tmp_path: Path) -> None:
    windows = windows_of(programme.library, [programme.indexed.run_id])
    for what, name in names(programme.path):
        assert export(windows, programme.path, what, tmp_path / name)[-1].stat().st_size > 50
        with pytest.raises(SourceError, match="exists already"):
            export(windows, programme.path, what, tmp_path / name)
    with pytest.raises(ParamsError, match="expected one of vtt"):
        export(windows, programme.path, "docx", tmp_path / "x.docx")
