"""Playlists: read back by parsers of their own, with names and titles that would break them."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path
from urllib.parse import unquote, urljoin

import pytest

from smolvlm.apps.videos.playlists import Moment, playlist
from smolvlm.errors import ParamsError

NAMES = ["plain.mp4", "with space & more/é #1 100%.mp4", "../up.mp4", "a:b.mp4", "quote\"'<>.mp4"]
TITLE = 'goal <b>now</b> & "x" ]]> \x00\x1b[31m\n#EXTVLCOPT:sout=file'
X = "{http://xspf.org/ns/0/}"
VLC = "{http://www.videolan.org/vlc/playlist/ns/0/}"


def moments(folder: Path) -> list[Moment]:
    return [Moment(folder / name, 1.5 + i, 3.25 + i, TITLE, "why <&>") for i, name in enumerate(NAMES)]


def test_xspf_is_read_back(tmp_path: Path) -> None:
    text = playlist(moments(tmp_path), tmp_path / "out.xspf")
    root = ET.fromstring(text)
    assert "vlc:option" in text
    for i, track in enumerate(root.iter(f"{X}track")):
        location = track.findtext(f"{X}location") or ""
        where = unquote(urljoin((tmp_path / "out.xspf").as_uri(), location))
        assert where == "file://" + str((tmp_path / NAMES[i]).resolve())
        assert [option.text for option in track.iter(f"{VLC}option")] == [f"start-time={1.5 + i:.3f}", f"stop-time={3.25 + i:.3f}"]
        assert [number.text for number in track.iter(f"{VLC}id")] == [str(i)]
        assert "<b>now</b>" in (track.findtext(f"{X}title") or "")


def test_a_title_adds_no_line_to_m3u8(tmp_path: Path) -> None:
    lines = playlist(moments(tmp_path), tmp_path / "out.m3u8").splitlines()
    assert len(lines) == 1 + 4 * len(NAMES)
    options = [line for line in lines if line.startswith("#EXTVLCOPT")]
    assert options[:2] == ["#EXTVLCOPT:start-time=1.500", "#EXTVLCOPT:stop-time=3.250"]
    assert not any("sout" in line for line in options)


def test_other_suffixes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="name it .xspf or .m3u8"):
        playlist([], tmp_path / "out.txt")
