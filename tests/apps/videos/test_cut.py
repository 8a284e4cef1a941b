"""Cuts, judged by `ffmpeg` and `ffprobe`: in step at every seam, uniform, decodable, copied where they can be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from helpers_cut import RATE, beep_times, decodes, expected, flash_times, flashing, frame_times, probe
from smolvlm.apps.videos.cut import CutReport, Piece, cut
from smolvlm.media import Video

H264 = ("-c:v", "libx264", "-g", "45", "-bf", "3", "-preset", "veryfast")
HEVC = ("-c:v", "libx265", "-x265-params", "log-level=error:keyint=45:open-gop=0:bframes=3", "-preset", "ultrafast")
VP9 = ("-c:v", "libvpx-vp9", "-g", "45", "-deadline", "realtime", "-cpu-used", "8")
PIECES = [(1.3, 4.8), (6.0, 9.05), (9.5, 12.0)]
STEP_S = 0.040


def made(source: Path, out: Path, pieces: list[tuple[float, float]] = PIECES) -> CutReport:
    with Video(source) as video:
        return cut(video, [Piece(*piece) for piece in pieces], out)


def check_step(out: Path, pieces: list[tuple[float, float]]) -> None:
    """Picture and sound within 40 ms of where they belong, from the start to the end."""
    due, seen, heard = expected(pieces), flash_times(out), beep_times(out)
    assert len(seen) == len(due), f"flashes at {seen}, expected {due}"
    assert len(heard) == len(due), f"beeps at {heard}, expected {due}"
    assert np.abs(np.subtract(seen, due)).max() <= STEP_S
    assert np.abs(np.subtract(heard, due)).max() <= STEP_S


def check_uniform(out: Path, report: CutReport, step: float = 1 / RATE, rounding: float = 1e-5) -> None:
    times = frame_times(out)
    assert times[0] == pytest.approx(0, abs=rounding)
    assert np.abs(np.diff(times) - step).max() <= rounding
    assert len(times) * step == pytest.approx(report.duration_s, abs=1e-6)
    streams = probe(out, "-show_entries", "stream=duration,start_time")["streams"]
    assert all(abs(float(s["start_time"])) < 0.001 for s in streams)
    assert all(abs(float(s["duration"]) - report.duration_s) <= step for s in streams if "duration" in s)


def sizes(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(packet) for packet in container.demux(video=0) if packet.size]


def check_copied(source: Path, out: Path, report: CutReport) -> None:
    """As many packets as the report says are the source's, byte for byte."""
    there = set(sizes(source))
    assert sum(packet in there for packet in sizes(out)) == report.copied_frames > 0


def test_h264_with_b_frames(tmp_path: Path) -> None:
    source = flashing(tmp_path / "source.mp4", *H264)
    report = made(source, tmp_path / "out.mp4")
    decodes(tmp_path / "out.mp4")
    check_step(tmp_path / "out.mp4", PIECES)
    check_uniform(tmp_path / "out.mp4", report)
    check_copied(source, tmp_path / "out.mp4", report)
    assert not report.reasons
    assert report.encoded_frames < 2 * 45 * len(PIECES), "at most one group of pictures at either edge"
    assert report.copied_frames + report.encoded_frames == len(frame_times(tmp_path / "out.mp4"))


def hevc_payload(packet: bytes) -> bytes:
    """Without the parameter sets that stand before the first copied packet after an edge."""
    from smolvlm.apps.videos.cut.bitstream import HEVC_SETS, nal_type, packed, units

    return packed([unit for unit in units(packet, 4) if nal_type(unit, "hevc") not in HEVC_SETS], 4)


def test_hevc(tmp_path: Path) -> None:
    source, out = flashing(tmp_path / "source.mp4", *HEVC), tmp_path / "out.mp4"
    report = made(source, out)
    decodes(out)
    check_step(out, PIECES)
    check_uniform(out, report)
    there = {hevc_payload(packet) for packet in sizes(source)}
    assert sum(hevc_payload(packet) in there for packet in sizes(out)) == report.copied_frames > 0


def test_vp9(tmp_path: Path) -> None:
    source, out = flashing(tmp_path / "source.webm", *VP9, sound="libopus"), tmp_path / "out.mp4"
    report = made(source, out)
    decodes(out)
    check_step(out, PIECES)
    check_uniform(out, report)
    check_copied(source, out, report)


def test_variable_rate_keeps_its_times(tmp_path: Path) -> None:
    """Every frame lasts as long as in the source."""
    drops = "select='not(mod(n,7))+lt(mod(n,50),20)'"
    source = flashing(tmp_path / "source.mp4", *H264, "-fps_mode", "vfr", filters=drops)
    out = tmp_path / "out.mp4"
    report = made(source, out, [(2.0, 8.0)])
    decodes(out)
    piece = report.pieces[0]
    with Video(source) as video:
        times = [frame.time_s for frame in video.frames() if piece.start_s - 1e-6 <= frame.time_s < piece.end_s - 1e-6]
    assert frame_times(out) == pytest.approx(np.array(times) - times[0], abs=1e-4)
    assert report.copied_frames > 0
    assert np.abs(np.subtract(beep_times(out), expected([(piece.start_s, piece.end_s)]))).max() <= STEP_S


def test_rotation_is_kept(tmp_path: Path) -> None:
    from helpers_media import make_clip

    source = make_clip(tmp_path / "source.mp4", 120, rotation=90, options={"g": "25"})
    report = made(source, tmp_path / "out.mp4", [(0.52, 4.0)])
    with Video(source) as before, Video(tmp_path / "out.mp4") as after:
        assert after.rotation == before.rotation != 0
        assert next(after.frames()).pixels.shape == next(before.frames()).pixels.shape
    decodes(tmp_path / "out.mp4")
    assert report.copied_frames > 0
    assert "no sound" in report.notes[0]


UNSAFE: dict[str, tuple[tuple[str, ...], str]] = {
    "open groups": (("-c:v", "libx264", "-g", "45", "-x264-params", "open-gop=1", "-preset", "veryfast"), "open"),
    "hevc of 10 bits": (
        ("-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", "log-level=error:keyint=45", "-preset", "ultrafast"),
        "more than 8 bits",
    ),
    "another codec": (("-c:v", "mpeg4", "-q:v", "4"), "as H.264"),
}


@pytest.mark.parametrize("kind", [pytest.param("open groups"), *(pytest.param(k, marks=pytest.mark.slow) for k in list(UNSAFE)[1:])])
def test_what_is_unsafe_is_encoded_and_said(tmp_path: Path, kind: str) -> None:
    codec, reason = UNSAFE[kind]
    source, out = flashing(tmp_path / "source.mp4", *codec), tmp_path / "out.mp4"
    report = made(source, out, [(1.3, 5.8), (6.0, 9.05)])
    assert report.copied_frames == 0
    assert len(report.reasons) == 2
    assert all(reason in each for each in report.reasons)
    decodes(out)
    check_step(out, [(1.3, 5.8), (6.0, 9.05)])
    check_uniform(out, report)
    before, after = (probe(p, "-show_entries", "stream=pix_fmt", streams="v")["streams"][0]["pix_fmt"] for p in (source, out))
    assert before == after


MATRIX: dict[str, Any] = {
    **{f"h264 in {suffix}": (H264, suffix, "aac", out) for suffix in (".mkv", ".ts", ".mov") for out in (".mp4", ".mkv")},
    "vorbis becomes AAC": (H264, ".mkv", "libvorbis", ".mp4"),
    "hevc in Matroska": (HEVC, ".mkv", "libopus", ".mkv"),
    "hevc in a transport stream": (HEVC, ".ts", "aac", ".mp4"),
    "vp9 stays WebM": (VP9, ".webm", "libopus", ".webm"),
    "baseline": ((*H264, "-profile:v", "baseline", "-bf", "0"), ".mp4", "aac", ".mp4"),
    "4:4:4": ((*H264, "-pix_fmt", "yuv444p"), ".mp4", "aac", ".mp4"),
    "no deblocking, CAVLC, weighted": ((*H264, "-x264-params", "cabac=0:no-deblock=1:weightp=2"), ".mp4", "aac", ".mp4"),
    "MP3 becomes AAC": (H264, ".mp4", "libmp3lame", ".mp4"),
    "AC-3": (H264, ".mp4", "ac3", ".mp4"),
    "Vorbis is copied": (H264, ".mkv", "libvorbis", ".mkv"),
    "FLAC": (H264, ".mkv", "flac", ".mkv"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kind", MATRIX)
def test_containers_and_codecs(tmp_path: Path, kind: str) -> None:
    codec, suffix, sound, wanted = MATRIX[kind]
    source, out = flashing(tmp_path / f"source{suffix}", *codec, sound=sound), tmp_path / f"out{wanted}"
    report = made(source, out)
    decodes(out)
    check_step(out, PIECES)
    check_uniform(out, report, rounding=1e-5 if wanted == ".mp4" else 1.01e-3)
    assert report.copied_frames > 0


def test_subtitles_are_shifted_and_clipped(tmp_path: Path) -> None:
    import subprocess

    plain, source, out = flashing(tmp_path / "plain.mp4", *H264), tmp_path / "source.mp4", tmp_path / "out.mp4"
    (tmp_path / "text.srt").write_text(
        "1\n00:00:01,000 --> 00:00:02,000\nbegins before\n\n2\n00:00:03,000 --> 00:00:04,000\ninside\n\n"
        "3\n00:00:05,000 --> 00:00:05,500\nbetween\n\n4\n00:00:08,500 --> 00:00:11,000\nends behind\n\n",
        encoding="utf-8",
    )
    subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            plain,
            "-i",
            tmp_path / "text.srt",
            "-map",
            "0",
            "-map",
            "1",
            "-c",
            "copy",
            "-c:s",
            "mov_text",
            source,
        ],
        check=True,
    )
    made(source, out, [(1.5, 4.5), (7.0, 9.0)])
    text = subprocess.run(["ffmpeg", "-v", "error", "-i", out, "-f", "srt", "-"], capture_output=True, text=True, check=True).stdout
    cues = [block.splitlines()[1:] for block in text.strip().split("\n\n")]
    assert cues == [
        ["00:00:00,000 --> 00:00:00,500", "begins before"],
        ["00:00:01,500 --> 00:00:02,500", "inside"],
        ["00:00:04,500 --> 00:00:05,000", "ends behind"],
    ]
    decodes(out)


@pytest.mark.slow
def test_lossless_sound_is_exact_to_the_sample(tmp_path: Path) -> None:
    import subprocess

    def samples(path: Path) -> Any:
        raw = subprocess.run(["ffmpeg", "-v", "error", "-i", path, "-map", "0:a", "-f", "s16le", "-"], capture_output=True, check=True)
        return np.frombuffer(raw.stdout, np.int16)

    source, out = flashing(tmp_path / "source.mkv", *H264, "-sample_fmt", "s16", sound="flac"), tmp_path / "out.mkv"
    report = made(source, out)
    before = samples(source)
    wanted = np.concatenate([before[round(p.start_s * 48_000) : round(p.end_s * 48_000)] for p in report.pieces])
    assert np.array_equal(samples(out), wanted)
