"""A thousand damaged files: only our own exceptions come out, nothing crashes, memory stays bounded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import pytest

TESTS = Path(__file__).resolve().parents[1]


def _run(count: int, seed: int, folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(
        [sys.executable, str(TESTS / "helpers_mutation.py"), str(count), str(seed), str(folder)],
        capture_output=True,
        text=True,
        timeout=550,
        env=environment,
    )
    assert done.returncode == 0, f"the process died with {done.returncode}: {done.stderr[-2000:]}"
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(result)
    assert result["foreign"] == []
    # The limits allow 4 million pixels: 16 MB as RGBA, a few copies of it on the way to RGB.
    assert result["grown_bytes"] < 100e6
    assert result["slowest_s"] < 10
    outcomes = result["outcomes"]
    assert sum(outcomes.values()) == count
    assert outcomes["read"] > count / 10, "some damage is harmless"
    assert min(outcomes["ImageError"], outcomes["VideoError"]) > count / 20, "some damage is not"
    return result


@pytest.mark.slow
def test_a_thousand_damaged_files(tmp_path: Path) -> None:
    _run(1000, 1, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_many_damaged_files(seed: int, tmp_path: Path) -> None:
    _run(10_000, seed, tmp_path)


def test_false_key_frames_do_not_crash(clips: dict[str, Path], tmp_path: Path) -> None:
    """A file may call any frame a key. libav's VP9 with frame threads crashes on that after a flush: we use none there."""
    for name in ("vp9.webm", "cfr.mp4", "open_gop_hevc.mp4"):
        path = tmp_path / f"keys_{Path(name).stem}.mkv"
        with av.open(str(clips[name])) as inside, av.open(str(path), "w") as out:
            stream = out.add_stream_from_template(inside.streams.video[0])
            for packet in inside.demux(inside.streams.video[0]):
                if packet.size:
                    packet.is_keyframe, packet.stream = True, stream
                    out.mux(packet)
        code = (
            "import sys, logging; logging.disable(); from smolvlm.media import MediaOptions, sample_video\n"
            "from smolvlm.config import ProcessorConfig\n"
            "config = ProcessorConfig(tile_size=64, longest_edge=128, video_longest_edge=64)\n"
            "for _ in range(10):\n"
            "    video = sample_video(sys.argv[1], config, MediaOptions(fps=12, max_frames=40))\n"
            "print(*video.indices)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)],
            capture_output=True,
            text=True,
            timeout=300,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.returncode == 0, f"{name}: {done.returncode} {done.stderr[-500:]}"
        assert len(done.stdout.split()) > 20
