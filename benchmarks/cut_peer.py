"""The same cuts by `smolvlm` and by smartcut, judged by `ffmpeg`: step of picture and sound, frame times, packets, time.

    python3 -m venv /tmp/smartcut && /tmp/smartcut/bin/pip install smartcut==1.7     (it pins another PyAV)
    python -m benchmarks.cut_peer --smartcut /tmp/smartcut/bin/smartcut

The source has a flash and a beep at every second. Without --smartcut, our own column alone.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))  # the judge of the tests

from helpers_cut import RATE, beep_times, expected, flash_times, flashing, frame_times

PIECES = [(5.3, 20.3), (33.1, 43.1)]
CODECS = {
    "H.264, B-frames": (".mp4", "aac", ("-c:v", "libx264", "-g", "250", "-bf", "3", "-preset", "veryfast")),
    "HEVC, closed groups": (
        ".mp4",
        "aac",
        ("-c:v", "libx265", "-x265-params", "log-level=error:keyint=250:open-gop=0", "-preset", "ultrafast"),
    ),
    "HEVC, 10 bits": (
        ".mp4",
        "aac",
        ("-pix_fmt", "yuv420p10le", "-c:v", "libx265", "-x265-params", "log-level=error:keyint=250", "-preset", "ultrafast"),
    ),
    "VP9": (".webm", "libopus", ("-c:v", "libvpx-vp9", "-g", "250", "-deadline", "realtime", "-cpu-used", "8")),
}
OURS = """
import sys
from smolvlm.apps.videos.cut import Piece, cut
from smolvlm.media import Video
with Video(sys.argv[1]) as video:
    cut(video, [Piece(*map(float, piece.split("-"))) for piece in sys.argv[3:]], sys.argv[2])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smartcut", metavar="PROGRAM")
    parser.add_argument("--size", default="640x360")
    options = parser.parse_args()
    columns = ["frames (due)", "frame rate", "worst step - 1/30 s", "picture off by", "sound off by", "decoder's errors", "copied", "CPU s"]
    print(f"| source | by | {' | '.join(columns)} |")
    print(f"| --- | --- | {' | '.join(['---:'] * len(columns))} |")
    with tempfile.TemporaryDirectory() as name:
        for codec, (suffix, sound, how) in CODECS.items():
            source = flashing(Path(name) / f"source{suffix}", *how, seconds=60, size=options.size, sound=sound)
            ours = [sys.executable, "-c", OURS, str(source), "OUT", *(f"{a}-{b}" for a, b in PIECES)]
            theirs = [options.smartcut, str(source), "OUT", "--keep", ",".join(f"{a},{b}" for a, b in PIECES)]
            for who, command in (("smolvlm", ours), ("smartcut", theirs)):
                if command[0]:
                    print(f"| {codec} | {who} | {row(source, Path(name) / f'{who}{suffix}', command)} |", flush=True)


def row(source: Path, out: Path, command: list[str]) -> str:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([str(out) if word == "OUT" else word for word in command], capture_output=True, text=True, timeout=600)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode or not out.exists():
        return f"failed: {(done.stderr.strip().splitlines() or ['no file'])[-1][:120]} | | | | | | |"
    times = np.sort(frame_times(out))
    due = round(sum(end - start for start, end in PIECES) * RATE)
    uneven = float(np.abs(np.diff(times) - 1 / RATE).max())
    errors = subprocess.run(["ffmpeg", "-v", "error", "-i", out, "-f", "null", "-"], capture_output=True, text=True, check=False).stderr
    there = packets(source)
    copied = sum(packet in there for packet in packets(out))
    figures = [
        f"{len(times)} ({due})",
        f"{(len(times) - 1) / (times[-1] - times[0]):.3f}",
        f"{uneven * 1000:.1f} ms",
        off_by(flash_times(out)),
        off_by(beep_times(out)),
        str(len(errors.splitlines())),
        str(copied),
        f"{after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime:.1f}",
    ]
    out.unlink()
    return " | ".join(figures)


def off_by(found: list[float]) -> str:
    """The worst distance from where a flash or beep belongs."""
    due = expected(PIECES)
    if len(found) != len(due):
        return f"{len(found)} of {len(due)} there"
    return f"{np.abs(np.subtract(found, due)).max() * 1000:.0f} ms"


def packets(path: Path) -> set[bytes]:
    with av.open(str(path)) as container:
        return {bytes(packet) for packet in container.demux(video=0) if packet.size}


if __name__ == "__main__":
    main()
