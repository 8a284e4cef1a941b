"""The subtitles of a cut: each cue shifted to its place, and clipped to its piece."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import av

from smolvlm.apps.videos.cut.sound import Span
from smolvlm.media import Video

_SCALE = 1000
_TEXTS = {"mp4": ("mov_text",), "mov": ("mov_text",), "matroska": ("subrip", "ass", "ssa", "webvtt", "mov_text"), "webm": ("webvtt",)}
_MOST_S = 60  # how long before a piece a cue may begin that is still shown in it


def subtitle_streams(
    video: Video, source: Any, output: Any, format: str, spans: Sequence[Span], note: Callable[[str], None]
) -> Iterator[tuple[Any, Iterator[Any]]]:
    """(output stream, packets) of each subtitle stream that the container holds as it is; `note` hears of the others."""
    for info in video.streams:
        if info.kind != "subtitle":
            continue
        codec = info.codec or str(source.streams[info.index].name)
        if codec not in _TEXTS[format]:
            note(f"subtitles ({codec}) were left out: {format} does not hold them; write .mkv instead.")
            continue
        stream = output.add_stream_from_template(source.streams[info.index])
        if info.language:
            stream.metadata["language"] = info.language
        stream.time_base = Fraction(1, _SCALE)
        yield stream, _cues(video, info.index, spans, codec)


def _cues(video: Video, index: int, spans: Sequence[Span], codec: str) -> Iterator[Any]:
    container = video.container()
    try:
        stream = container.streams[index]
        for span in spans:
            yield from _of_piece(container, stream, span, codec)
    finally:
        container.close()


def _of_piece(container: Any, stream: Any, span: Span, codec: str) -> Iterator[Any]:
    container.seek(max(int((span.start_s - _MOST_S) / Fraction(1, 1_000_000)), 0), backward=True)
    end_s = span.start_s + span.length_s
    for packet in container.demux(stream):
        if not packet.size or packet.pts is None:
            continue
        begins = packet.pts * packet.time_base
        if begins >= end_s:
            return
        ends = begins + Fraction(packet.duration or 0) * packet.time_base
        if ends <= span.start_s or (codec == "mov_text" and bytes(packet) == b"\0\0"):
            continue
        first = span.at_s + max(begins - span.start_s, Fraction(0))
        made = av.Packet(bytes(packet))
        made.pts = made.dts = round(first * _SCALE)
        made.duration = round((span.at_s + min(ends, end_s) - span.start_s) * _SCALE) - made.pts
        made.time_base = Fraction(1, _SCALE)
        made.is_keyframe = True
        yield made
