"""The subtitles inside a video file, as text."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av

from smolvlm.media.container import open_container
from smolvlm.media.limits import Limits
from smolvlm.media.sources import Source
from smolvlm.media.timeline import Timeline
from smolvlm.media.video_file import damage_named

_ASS_FIELDS = 8  # ReadOrder, Layer, Style, Name, MarginL, MarginR, MarginV, Effect; then the text
_LINE_BREAK = re.compile(r"\\[Nn]")
_UNKNOWN_S = 4.0  # how long a text stays whose packet does not say


@dataclass(frozen=True)
class SubtitleText:
    """A subtitle in seconds from the first frame, with its markup; `stream` is its stream's index in the file."""

    start_s: float
    end_s: float
    text: str
    stream: int


def subtitles_in(source: Source, limits: Limits, timeline: Timeline) -> Iterator[SubtitleText]:
    """All texts of all streams of subtitles, in the file's order; subtitles that are pictures have none."""
    container = open_container(source, limits)
    try:
        streams = list(container.streams.subtitles)
        if not streams:
            return
        with damage_named(source.label):
            for packet in container.demux(streams):
                if packet.pts is None or not packet.size:
                    continue
                start_s = float(packet.pts * packet.time_base) - timeline.index.first_s
                lasts_s = float((packet.duration or 0) * packet.time_base) or _UNKNOWN_S
                if text := " ".join(_texts(packet)).strip():
                    yield SubtitleText(start_s, start_s + lasts_s, text, packet.stream.index)
    finally:
        container.close()


def _texts(packet: Any) -> Iterator[str]:
    try:
        parts = list(packet.decode())
    except (av.FFmpegError, ValueError):
        return  # a damaged one; the next may be whole
    for part in parts:
        raw = getattr(part, "ass", b"") or b""
        line = raw.decode("utf-8", "replace") if isinstance(raw, bytes) else str(raw)
        yield _LINE_BREAK.sub("\n", line.split(",", _ASS_FIELDS)[-1])
