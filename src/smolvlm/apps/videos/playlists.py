"""Moments as playlists that VLC plays from start to stop: XSPF and M3U8."""

from __future__ import annotations

import os
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from smolvlm.errors import ParamsError

_XSPF, _VLC = "http://xspf.org/ns/0/", "http://www.videolan.org/vlc/playlist/ns/0/"
_VLC_APPLICATION = "http://www.videolan.org/vlc/playlist/0"
PLAYLISTS = (".xspf", ".m3u8")


@dataclass(frozen=True)
class Moment:
    """A part of a file, in seconds, and what it is called."""

    path: Path
    start_s: float
    end_s: float
    title: str
    note: str = ""


def playlist(moments: Sequence[Moment], out: Path) -> str:
    """The text of a playlist at `out`; files are named relative to its folder, so that both can move together.

    Raises ParamsError for another suffix than .xspf or .m3u8.
    """
    suffix = out.suffix.lower()
    if suffix not in PLAYLISTS:
        raise ParamsError(f"{out.name!r} is no playlist: name it .xspf or .m3u8.")
    folder = Path(os.path.abspath(out)).parent
    return xspf(moments, folder) if suffix == ".xspf" else m3u8(moments, folder)


def xspf(moments: Sequence[Moment], folder: Path | None) -> str:
    """`folder`: None writes whole addresses. VLC matches the `vlc:` prefix and the application's address letter by letter."""
    root = ET.Element("playlist", {"version": "1", "xmlns": _XSPF, "xmlns:vlc": _VLC})
    ET.SubElement(root, "title").text = "smolvlm"
    tracks = ET.SubElement(root, "trackList")
    for number, moment in enumerate(moments):
        track = ET.SubElement(tracks, "track")
        ET.SubElement(track, "location").text = location(moment.path, folder)
        ET.SubElement(track, "title").text = xml_text(moment.title)
        if moment.note:
            ET.SubElement(track, "annotation").text = xml_text(moment.note)
        ET.SubElement(track, "duration").text = str(max(0, round((moment.end_s - moment.start_s) * 1000)))
        extension = ET.SubElement(track, "extension", {"application": _VLC_APPLICATION})
        ET.SubElement(extension, "vlc:id").text = str(number)
        ET.SubElement(extension, "vlc:option").text = f"start-time={moment.start_s:.3f}"
        ET.SubElement(extension, "vlc:option").text = f"stop-time={moment.end_s:.3f}"
    ET.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ET.tostring(root, encoding="unicode") + "\n"


def m3u8(moments: Sequence[Moment], folder: Path | None) -> str:
    """Each line that a title could add is one line less: breaks become spaces."""
    lines = ["#EXTM3U"]
    for moment in moments:
        title = " ".join(xml_text(moment.title).split())
        lines += [
            f"#EXTINF:{max(0, round(moment.end_s - moment.start_s))},{title}",
            f"#EXTVLCOPT:start-time={moment.start_s:.3f}",
            f"#EXTVLCOPT:stop-time={moment.end_s:.3f}",
            location(moment.path, folder),
        ]
    return "\n".join(lines) + "\n"


def location(path: Path, folder: Path | None) -> str:
    """A file as a percent-encoded address, relative to `folder` where one leads to the other."""
    whole = Path(os.path.abspath(path))
    if folder is None:
        return whole.as_uri()
    try:
        relative = os.path.relpath(whole, folder)
    except ValueError:  # another drive of Windows
        return whole.as_uri()
    address = quote(os.fsencode(relative.replace(os.sep, "/")))
    return f"./{address}" if ":" in address.split("/")[0] else address


def xml_text(text: str) -> str:
    """Without the characters that XML 1.0 cannot hold."""
    return "".join(c if c in "\t\n\r" or "\x20" <= c <= "\ud7ff" or "\ue000" <= c <= "\ufffd" or c >= "\U00010000" else " " for c in text)
