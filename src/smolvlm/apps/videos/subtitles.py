"""Subtitles: inside the file, and in a file of the same name beside it (SRT, WebVTT). Their text is data, never a prompt."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from smolvlm.errors import VideoError
from smolvlm.media import Video

_MOST_BYTES = 16 << 20
_MOST_CHARS = 2000  # of one subtitle
_MOST = 50_000  # of one file
_TIME = r"(?:(\d{1,3}):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"^\s*{_TIME}\s*-->\s*{_TIME}", re.ASCII)
_TAG = re.compile(r"<[^<>]{0,200}>|\{\\[^{}]{0,200}\}")


@dataclass(frozen=True)
class Subtitle:
    """Seconds from the first frame; `source` is "inside" or the name of the file beside."""

    start_s: float
    end_s: float
    text: str
    source: str


def subtitles_of(video: Video, path: Path) -> tuple[list[Subtitle], list[str]]:
    """(subtitles in order of time, warnings)."""
    found: list[Subtitle] = []
    warnings: list[str] = []
    try:
        for text in video.subtitles():
            if len(found) < _MOST and (words := plain(text.text)):
                found.append(Subtitle(max(text.start_s, 0.0), max(text.end_s, 0.0), words, "inside"))
    except VideoError as error:
        warnings.append(f"its subtitles cannot be read: {error}")
    for beside in _beside(path):
        try:
            if beside.stat().st_size > _MOST_BYTES:
                warnings.append(f"{beside.name} is larger than subtitles are, and was left out.")
                continue
            found += [each for each in parse(beside.read_bytes(), beside.name) if each.start_s < video.duration_s][: _MOST - len(found)]
        except OSError as error:
            warnings.append(f"{beside.name} cannot be read ({error.strerror}).")
    return sorted(found, key=lambda each: (each.start_s, each.end_s)), warnings


def parse(data: bytes, source: str) -> Iterator[Subtitle]:
    """The subtitles of an SRT or WebVTT file; blocks that are neither are passed over."""
    for block in re.split(r"\n[ \t]*\n", _decoded(data)):
        lines = block.strip("\n").split("\n")
        for i, line in enumerate(lines[:3]):  # a number, or a name, may stand before the times
            if (times := _TIMES.match(line)) is None:
                continue
            start_s, end_s = _seconds(times.groups()[:4]), _seconds(times.groups()[4:])
            if words := plain("\n".join(lines[i + 1 :])):
                yield Subtitle(start_s, max(end_s, start_s), words, source)
            break


def plain(text: str) -> str:
    """One line without markup."""
    return " ".join(html.unescape(_TAG.sub("", text[: 4 * _MOST_CHARS]).replace("\\N", " ")).split())[:_MOST_CHARS]


def _beside(path: Path) -> list[Path]:
    """`film.srt`, `film.en.vtt` beside `film.mp4`."""
    try:
        files = sorted(file for file in path.parent.iterdir() if file.suffix.lower() in (".srt", ".vtt"))
    except OSError:
        return []
    return [file for file in files if file.name.startswith(f"{path.stem}.") and file.name.count(".") <= path.stem.count(".") + 2][:8]


def _decoded(data: bytes) -> str:
    for encoding in ("utf-8-sig", "utf-16") if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            return data.decode(encoding).replace("\r\n", "\n").replace("\r", "\n")
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1").replace("\r\n", "\n").replace("\r", "\n")


def _seconds(parts: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = (part or "0" for part in parts)
    return int(hours) * 3600 + int(minutes) * 60 + int(seconds) + int(fraction.ljust(3, "0")) / 1000
