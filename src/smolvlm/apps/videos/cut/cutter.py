"""Pieces of a video as one file: a stream of packets from each of its streams, merged by time and written as it comes."""

from __future__ import annotations

import contextlib
import heapq
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from smolvlm.apps.videos.cut.output_file import OutputFile, named_failures
from smolvlm.apps.videos.cut.picture import Picture
from smolvlm.apps.videos.cut.plan import Piece, PlannedPiece
from smolvlm.apps.videos.cut.sound import Span, copied_sound, encoded_sound
from smolvlm.apps.videos.cut.subtitles import subtitle_streams
from smolvlm.errors import ParamsError
from smolvlm.media import StreamInfo, Video

OnProgress = Callable[[str, int, int], None]

FORMATS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska", ".webm": "webm"}
_PICTURES = {"mp4": ("h264", "hevc", "vp9"), "mov": ("h264", "hevc"), "matroska": ("h264", "hevc", "vp9"), "webm": ("vp9",)}
# Sound that is copied; other is encoded, as FLAC where it has lost nothing yet, else as AAC (WebM: Opus). Not copied are MP3, whose
# packets hold parts of later ones (the first 80 ms behind a seam would be silent), and FLAC and ALAC, whose packets last 90 ms.
_SOUNDS = {
    "mp4": ("aac", "ac3", "eac3", "opus"),
    "mov": ("aac", "ac3", "eac3"),
    "matroska": ("aac", "ac3", "eac3", "opus", "vorbis", "dca"),
    "webm": ("opus", "vorbis"),
}
_LOSSLESS = ("flac", "alac", "pcm_s16le", "pcm_s16be", "pcm_s24le", "pcm_s24be", "pcm_s32le")


@dataclass(frozen=True)
class CutReport:
    """What was written. `reasons`: for each piece of which nothing could be copied, why; `notes`: what was left out or changed."""

    path: Path
    duration_s: float
    pieces: tuple[Piece, ...]
    copied_frames: int
    encoded_frames: int
    reasons: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass
class _Track:
    """A stream of the output and the packets for it."""

    stream: Any
    packets: Iterator[Any]


def cut(
    video: Video, pieces: Sequence[Piece], out: str | Path, *, overwrite: bool = False, on_progress: OnProgress | None = None
) -> CutReport:
    """Write `pieces` of `video`, one after the other, as `out` (.mp4, .mov, .mkv, .webm). Memory does not grow with the length.

    Packets are copied between key frames; at either edge of a piece less than one group of pictures is encoded in the source's own
    parameters. Where packets cannot be joined safely a piece is encoded whole, and the report says why. The file appears under its
    name when it is whole.

    Raises ParamsError for no pieces, one without a frame, or an unknown suffix; SourceError where `out` exists or cannot be written;
    VideoError where the video cannot be read.
    """
    target = Path(out)
    if target.suffix.lower() not in FORMATS:
        raise ParamsError(f"{str(target)!r}: a cut is written as {', '.join(FORMATS)}.")
    if not pieces:
        raise ParamsError("there is nothing to cut; give at least one piece.")
    picture = Picture(video)
    try:
        planned = picture.plan(pieces)
        with OutputFile(target, video.source.path, overwrite=overwrite) as temporary, named_failures(video.label, target):
            job = _Job(video, picture, planned, FORMATS[target.suffix.lower()])
            job.write(temporary, on_progress)
        return job.report(target)
    finally:
        picture.close()


class _Job:
    def __init__(self, video: Video, picture: Picture, planned: list[PlannedPiece], format: str) -> None:
        self._video, self._picture, self._planned, self._format = video, picture, planned, format
        self._notes: list[str] = []
        self._spans: list[Span] = []
        at = Fraction(0)
        for piece in planned:
            length = picture.length_s(piece)
            self._spans.append(Span(picture.origin_s + picture.start_s(piece), length, at))
            at += length
        self._length_s = at

    def write(self, path: Path, on_progress: OnProgress | None) -> None:
        with av.open(str(path), "w", format=self._format) as output:
            tracks = [self._picture_track(output), *self._sound_tracks(output), *self._subtitle_tracks(output)]
            total = round(self._length_s)
            for time_s, packet in _merged(tracks):
                output.mux_one(packet)
                if on_progress is not None:
                    on_progress("cutting", min(max(int(time_s), 0), total), total)

    def report(self, path: Path) -> CutReport:
        runs = [run for piece in self._planned for run in piece.runs]
        count = {copied: sum(run.stop - run.first for run in runs if bool(run.packets) is copied) for copied in (True, False)}
        starts = [span.start_s - self._picture.origin_s for span in self._spans]
        pieces = [Piece(float(start), float(start + span.length_s)) for start, span in zip(starts, self._spans, strict=True)]
        reasons = tuple(
            f"{piece.start_s:.2f}-{piece.end_s:.2f} s is encoded anew: {made.reason}."
            for piece, made in zip(pieces, self._planned, strict=True)
            if made.reason
        )
        return CutReport(path, float(self._length_s), tuple(pieces), count[True], count[False], reasons, tuple(self._notes))

    def _picture_track(self, output: Any) -> _Track:
        coding = self._picture.coding(self._planned)
        if coding.codec not in _PICTURES[self._format]:
            raise ParamsError(f"a {self._format} file does not hold {coding.codec}; write .mp4 or .mkv instead.")
        copies = any(run.packets for piece in self._planned for run in piece.runs)
        if copies:
            stream = output.add_stream_from_template(self._picture.stream, opaque=True)
            header = self._picture.header(coding)
            if header is not None:
                stream.codec_context.extradata = header
        else:
            stream = output.add_stream(coding.encoder_name, rate=coding.rate)
            coding.configure(stream.codec_context)
            if self._video.rotation:
                stream.set_display_rotation(-self._video.rotation)
        stream.time_base = coding.time_base
        return _Track(stream, self._picture.packets(self._planned, coding))

    def _sound_tracks(self, output: Any) -> Iterator[_Track]:
        infos = [info for info in self._video.streams if info.kind == "audio"]
        if not infos:
            self._notes.append("there is no sound in it.")
        for info in infos:
            if info.codec in _SOUNDS[self._format]:
                template = self._picture.container.streams[info.index]
                stream = output.add_stream_from_template(template)
                scale = info.sample_rate or 48_000
                stream.time_base = Fraction(1, scale)
                yield _Track(stream, copied_sound(self._video, info.index, self._spans, scale))
            elif info.default or len(infos) == 1:
                yield self._encoded_sound(output, info)
            else:
                self._notes.append(f"another sound track ({info.codec}) was left out: it cannot be copied into {self._format}.")

    def _encoded_sound(self, output: Any, info: StreamInfo) -> _Track:
        lossless = info.codec in _LOSSLESS and self._format in ("mp4", "matroska")
        name, held = ("libopus", "flt") if self._format == "webm" else ("flac", "s16") if lossless else ("aac", "fltp")
        fewer = ", in stereo" if info.channels > 2 else ""
        self._notes.append(
            f"the sound ({info.codec}) cannot be copied exactly; it is encoded as {name.removeprefix('lib').upper()}{fewer}."
        )
        rate = 48_000 if name == "libopus" or not 8000 <= info.sample_rate <= 48_000 else info.sample_rate
        stream = output.add_stream(name, rate=rate, layout="mono" if info.channels == 1 else "stereo", bit_rate=160_000)
        before = self._picture.container.streams[info.index].codec_context.format
        stream.codec_context.format = "s32" if lossless and not before.name.startswith("s16") else held
        stream.codec_context.open()
        return _Track(stream, encoded_sound(self._video, self._spans, self._picture.origin_s, stream.codec_context))

    def _subtitle_tracks(self, output: Any) -> Iterator[_Track]:
        source, note = self._picture.container, self._notes.append
        for stream, packets in subtitle_streams(self._video, source, output, self._format, self._spans, note):
            yield _Track(stream, packets)


def _merged(tracks: Sequence[_Track]) -> Iterator[tuple[Fraction, Any]]:
    """The packets of all tracks, in the order of their decoding times, each addressed to its stream."""

    def timed(number: int, track: _Track) -> Iterator[tuple[Fraction, int, Any]]:
        for packet in track.packets:
            packet.stream = track.stream
            time = packet.dts if packet.dts is not None else packet.pts
            yield Fraction(time) * packet.time_base, number, packet

    with contextlib.ExitStack() as closing:
        sources = [timed(number, track) for number, track in enumerate(tracks)]
        for source in (*sources, *(track.packets for track in tracks)):
            closing.callback(source.close)  # type: ignore[attr-defined]
        for time_s, _, packet in heapq.merge(*sources, key=lambda item: item[:2]):
            yield time_s, packet
