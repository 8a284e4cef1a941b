"""Clips whose every frame holds its number and its time as blocks of black and white, and what ffmpeg says of a file.

40 blocks, 8 in a row: 12 bits of number, 20 bits of milliseconds, 8 bits that only the right reading gives. They survive
every codec here, and being squashed to a square; turned or mirrored they do not read.
"""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8]

ROWS, COLUMNS = 5, 8


def have_ffmpeg() -> bool:
    return shutil.which("ffmpeg") is not None and shutil.which("ffprobe") is not None


def run(*command: str | Path) -> bytes:
    done = subprocess.run([str(part) for part in command], capture_output=True, timeout=300)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}: {done.stderr.decode('utf-8', 'replace')[-600:]}")
    return done.stdout


def ffmpeg(*arguments: str | Path) -> bytes:
    return run("ffmpeg", "-y", "-nostdin", "-loglevel", "error", "-threads", "2", *arguments)


def _check(number: int, ms: int) -> int:
    return (number * 37 + ms * 11 + (ms >> 7) + 90) & 0xFF


def coded_frame(number: int, ms: int, width: int, height: int) -> Pixels:
    """uint8 (height, width, 3)."""
    value = number | ms << 12 | _check(number, ms) << 32
    bits = np.array([value >> i & 1 for i in range(ROWS * COLUMNS)], np.uint8).reshape(ROWS, COLUMNS)
    grey = np.where(bits, 235, 20).astype(np.uint8)
    y, x = np.arange(height) * ROWS // height, np.arange(width) * COLUMNS // width
    return np.repeat(grey[y][:, x, None], 3, axis=2)


def read_code(pixels: Pixels) -> tuple[int, int] | None:
    """(number, milliseconds), or None where no code can be read."""
    height, width = pixels.shape[:2]
    grey = pixels.astype(np.float32).mean(axis=2)
    bits = 0
    for i in range(ROWS * COLUMNS):
        row, column = divmod(i, COLUMNS)
        top, left = (row + 0.3) * height / ROWS, (column + 0.3) * width / COLUMNS
        block = grey[int(top) : int(top + 0.4 * height / ROWS) + 1, int(left) : int(left + 0.4 * width / COLUMNS) + 1]
        bits |= int(block.mean() > 110) << i
    number, ms = bits & 0xFFF, bits >> 12 & 0xFFFFF
    return (number, ms) if bits >> 32 == _check(number, ms) else None


def make_source(path: Path, times_ms: Sequence[int], size: tuple[int, int] = (160, 120)) -> Path:
    """A lossless clip (FFV1 in NUT) whose frames are shown at these milliseconds."""
    with av.open(str(path), "w", format="nut") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height = size
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(coded_frame(i, ms, *size), "rgb24").reformat(format="bgr0")
            frame.pts, frame.time_base = ms, Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


@dataclass(frozen=True)
class Truth:
    """What ffmpeg's tools say of a video stream: frames in the order shown, seconds from the first, seconds in all."""

    codes: tuple[tuple[int, int] | None, ...]
    times: tuple[float, ...]
    duration_s: float
    frame_s: float


def truth_of(path: Path, stream: int = 0) -> Truth:
    """`stream` counts the video streams. ffprobe lists the frames, and an ffmpeg decode that drops and doubles none shows them."""
    probed = json.loads(
        run(
            "ffprobe",
            "-v",
            "error",
            "-select_streams",
            f"v:{stream}",
            "-show_entries",
            "frame=best_effort_timestamp_time,width,height:format=duration,start_time:stream=duration:stream_tags=DURATION",
            "-of",
            "json",
            path,
        )
    )
    stamps = [float(f["best_effort_timestamp_time"]) for f in probed["frames"] if "best_effort_timestamp_time" in f]
    frames = _decoded(path, stream)
    times = tuple(stamp - stamps[0] for stamp in stamps) if len(stamps) == len(frames) else ()
    tag = probed["streams"][0].get("tags", {}).get("DURATION", "").split(":")
    tagged = float(tag[0]) * 3600 + float(tag[1]) * 60 + float(tag[2]) if len(tag) == 3 else None
    lengths = [probed["streams"][0].get("duration"), tagged, probed["format"].get("duration")]
    known = [float(value) for value in lengths if value not in (None, "N/A")]
    last = times[-1] if times else 0.0
    # ffprobe's own word for the stream, unless it says less than its own frames.
    duration_s = next((value for value in known if value > last), 0.0)
    begins_s = float(probed["format"].get("start_time") or 0)
    if begins_s > 1 and duration_s - begins_s > last - 0.001:  # Matroska, FLV, NUT count from zero, not from the first frame
        duration_s -= begins_s
    frame_s = duration_s / len(frames)
    return Truth(tuple(read_code(frame) for frame in frames), times, duration_s, frame_s)


def _decoded(path: Path, stream: int) -> list[Pixels]:
    """Every frame by `ffmpeg`, upright, as PNG-free raw pixels through a pipe."""
    raw = ffmpeg(
        "-i", path, "-map", f"0:v:{stream}", "-fps_mode", "passthrough", "-f", "image2pipe", "-c:v", "ppm", "-pix_fmt", "rgb24", "-"
    )
    frames, at = [], 0
    while at < len(raw):
        fields = raw[at : at + 40].split(b"\n", 3)
        width, height = (int(value) for value in fields[1].split())
        start = at + sum(len(field) + 1 for field in fields[:3])
        at = start + width * height * 3
        frames.append(np.frombuffer(raw[start:at], np.uint8).reshape(height, width, 3))
    return frames


def patch_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write (a, b, c, d) into the display matrix of an MP4's first track."""
    data = bytearray(path.read_bytes())
    at = data.index(b"tkhd") + 4 + 4 + 20 + 16
    a, b, c, d = (value * 65536 for value in matrix)
    data[at : at + 36] = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
    path.write_bytes(data)
    return path


def drop_chunks(path: Path, numbers: Sequence[int]) -> Path:
    """Empty these video chunks of an AVI, as a recorder does that drops frames; its index is written anew."""
    data = path.read_bytes()
    movi = data.index(b"movi")
    at, end = movi + 4, movi + int.from_bytes(data[movi - 4 : movi], "little")
    chunks: list[tuple[bytes, bytes]] = []
    while at < end:
        size = int.from_bytes(data[at + 4 : at + 8], "little")
        chunks.append((data[at : at + 4], data[at + 8 : at + 8 + size]))
        at += 8 + size + (size & 1)
    videos = [i for i, (name, _) in enumerate(chunks) if name[2:] in (b"dc", b"db")]
    for number in numbers:
        chunks[videos[number]] = (chunks[videos[number]][0], b"")
    body, index = b"movi", b""
    for name, content in chunks:
        index += name + (16).to_bytes(4, "little") + len(body).to_bytes(4, "little") + len(content).to_bytes(4, "little")
        body += name + len(content).to_bytes(4, "little") + content + b"\0" * (len(content) & 1)
    rest = b"LIST" + len(body).to_bytes(4, "little") + body + b"idx1" + len(index).to_bytes(4, "little") + index
    whole = data[8 : movi - 8] + rest
    path.write_bytes(b"RIFF" + len(whole).to_bytes(4, "little") + whole)
    return path


@functools.cache
def encoders() -> frozenset[str]:
    """The names of the encoders that this ffmpeg has."""
    lines = run("ffmpeg", "-hide_banner", "-encoders").decode().splitlines()
    return frozenset(line.split()[1] for line in lines if line.startswith(" V"))
