"""Sources with a flash and a beep in every second, and a judge that hears and sees them: the `ffmpeg` program."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import numpy as np

RATE = 30
FLASHES = "eq=brightness='if(lt(mod(t,1),0.1),0.9,0)':eval=frame"
BEEPS = "aevalsrc='0.5*sin(2*PI*1000*t)*lt(mod(t,1),0.1)':s=48000:d={seconds}"


def flashing(path: Path, *codec: str, seconds: int = 12, filters: str = "", size: str = "160x120", sound: str = "aac") -> Path:
    """A moving picture that is white, and a tone of 1 kHz, in the first tenth of every second."""
    picture = f"testsrc2=s={size}:r={RATE}:d={seconds},{FLASHES}{',' + filters if filters else ''}"
    beeps = BEEPS.format(seconds=seconds)
    made = ["-f", "lavfi", "-i", picture, "-f", "lavfi", "-i", beeps, "-pix_fmt", "yuv420p", *codec, "-c:a", sound]
    ffmpeg("-y", *made, str(path))
    return path


def ffmpeg(*arguments: str) -> str:
    done = subprocess.run(["ffmpeg", "-v", "error", "-nostdin", *arguments], capture_output=True, text=True, check=True, timeout=120)
    return done.stderr


def decodes(path: Path) -> None:
    """Every packet of every stream, without a word from the decoders."""
    assert ffmpeg("-xerror", "-i", str(path), "-f", "null", "-") == ""


def probe(path: Path, *show: str, streams: str = "") -> dict[str, Any]:
    chosen = ["-select_streams", streams] if streams else []
    command = ["ffprobe", "-v", "error", *chosen, *show, "-of", "json", str(path)]
    found: dict[str, Any] = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    return found


def frame_times(path: Path) -> np.ndarray[Any, Any]:
    frames = probe(path, "-show_entries", "frame=pts_time", streams="v")["frames"]
    return np.array([float(frame["pts_time"]) for frame in frames])


def flash_times(path: Path) -> list[float]:
    """When the picture turns white."""
    raw = subprocess.run(
        [
            "ffmpeg",
            "-v",
            "error",
            "-i",
            str(path),
            "-vf",
            "scale=1:1:flags=area,format=gray",
            "-fps_mode",
            "passthrough",
            "-f",
            "rawvideo",
            "-",
        ],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    return onsets(np.frombuffer(raw, np.uint8) > 200, frame_times(path))


def beep_times(path: Path) -> list[float]:
    """When the tone begins, by the sound's own clock."""
    raw = subprocess.run(
        ["ffmpeg", "-v", "error", "-i", str(path), "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", "48000", "-f", "f32le", "-"],
        capture_output=True,
        check=True,
        timeout=60,
    ).stdout
    samples = np.frombuffer(raw, np.float32)
    blocks = np.abs(samples[: len(samples) // 240 * 240]).reshape(-1, 240).max(1)  # 5 ms
    return onsets(blocks > 0.2, np.arange(len(blocks)) * 0.005)


def onsets(on: np.ndarray[Any, Any], times: np.ndarray[Any, Any]) -> list[float]:
    begins = on & ~np.concatenate([[False], on[:-1]])
    return [float(t) for t in times[begins]]


def expected(pieces: list[tuple[float, float]]) -> list[float]:
    """When flashes and beeps begin in a cut of these pieces: those of the source, and the rest of one at a piece's start."""
    found, at = [], 0.0
    for start, end in pieces:
        if start % 1 < 0.095:
            found.append(at)
        found += [at + second - start for second in range(int(start) + 1, int(np.ceil(end))) if second < end - 0.02]
        at += end - start
    return found
