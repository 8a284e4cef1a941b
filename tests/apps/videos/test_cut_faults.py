"""Cutting what is broken, and cutting while the machine breaks: one sentence, and nothing half-written under the final name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import av
import pytest

from helpers_cut import decodes, frame_times
from helpers_media import make_clip
from smolvlm.apps.videos.cut import Piece, cut
from smolvlm.errors import ParamsError, SmolVLMError, SourceError
from smolvlm.media import Video

CUT = """
import sys
from smolvlm.apps.videos.cut import Piece, cut
from smolvlm.errors import SmolVLMError
from smolvlm.media import Video
try:
    with Video(sys.argv[1]) as video:
        cut(video, [Piece(0.5, video.duration_s)], sys.argv[2])
except SmolVLMError as error:
    sys.exit(str(error))
"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("cut") / "clip.mp4", 250, options={"g": "25"}, audio="aac")


def test_a_file_without_sound(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "silent.mp4", 60, options={"g": "25"})
    with Video(source) as video:
        report = cut(video, [Piece(0.2, 2.0)], tmp_path / "out.mp4")
    assert report.notes == ("there is no sound in it.",)
    decodes(tmp_path / "out.mp4")
    assert len(frame_times(tmp_path / "out.mp4")) == 45


def test_one_frame(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "one.mp4", 1)
    with Video(source) as video:
        cut(video, [Piece(0.0, 1.0)], tmp_path / "out.mp4")
        with pytest.raises(ParamsError, match=r"holds no frame; pieces end after they start"):
            cut(video, [Piece(5.0, 6.0)], tmp_path / "other.mp4")
    assert len(frame_times(tmp_path / "out.mp4")) == 1
    assert not (tmp_path / "other.mp4").exists()


def test_a_damaged_middle_costs_its_frames_only(clip: Path, tmp_path: Path) -> None:
    """Damage in an edge that is encoded: what cannot be decoded is left out, and the rest keeps its time."""
    data = bytearray(clip.read_bytes())
    with av.open(str(clip)) as container:
        hit = [packet for packet in container.demux(video=0) if packet.size][110]
        data[(hit.pos or 0) + 8 : (hit.pos or 0) + hit.size] = bytes(hit.size - 8)
    broken, out = tmp_path / "broken.mp4", tmp_path / "out.mp4"
    broken.write_bytes(data)
    with Video(broken) as video:
        report = cut(video, [Piece(4.2, 8.0)], out)
    times = frame_times(out)
    assert report.duration_s == pytest.approx(3.8)
    assert 60 < len(times) <= 95
    assert times[-1] == pytest.approx(3.8 - 0.04, abs=0.001), "the last frame keeps its time"


def test_a_file_that_vanishes(clip: Path, tmp_path: Path) -> None:
    source = tmp_path / "going.mp4"
    source.write_bytes(clip.read_bytes())
    with Video(source) as video:
        source.unlink()
        with pytest.raises(SmolVLMError, match=r"going\.mp4"):
            cut(video, [Piece(0.5, 3.0)], tmp_path / "out.mp4")
    assert not list(tmp_path.iterdir())


def test_never_over_a_file_of_the_user(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    out.write_bytes(b"mine")
    with Video(clip) as video:
        with pytest.raises(SourceError, match="pass overwrite=True"):
            cut(video, [Piece(0.5, 3.0)], out)
        assert out.read_bytes() == b"mine"
        cut(video, [Piece(0.5, 3.0)], out, overwrite=True)
    decodes(out)


def test_places_that_cannot_be_written(clip: Path, tmp_path: Path) -> None:
    with Video(clip) as video:
        with pytest.raises(SourceError, match="no such folder"):
            cut(video, [Piece(0.5, 3.0)], tmp_path / "nowhere" / "out.mp4")
        with pytest.raises(ParamsError, match=r"\.mp4, \.m4v, \.mov, \.mkv, \.webm"):
            cut(video, [Piece(0.5, 3.0)], tmp_path / "out.gif")
        with pytest.raises(ParamsError, match="does not hold h264"):
            cut(video, [Piece(0.5, 3.0)], tmp_path / "out.webm")
    assert not list(tmp_path.iterdir())


def test_a_read_only_folder(clip: Path) -> None:
    """/proc: read-only also for root, whom permissions do not stop."""
    if not Path("/proc/self").is_dir():
        pytest.skip("this system has no /proc, the one folder that root cannot write")
    with Video(clip) as video, pytest.raises(SourceError, match="cannot be written"):
        cut(video, [Piece(0.5, 3.0)], Path("/proc/out.mp4"))


def test_a_full_disk(clip: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the same error of the system comes at the same place."""
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))\n" + CUT
    done = subprocess.run([sys.executable, "-c", limited, clip, tmp_path / "out.mp4"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert "no room is left" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_killed_run_leaves_nothing_under_the_final_name_and_the_next_cleans_up(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.mp4"
    slow = CUT.replace(
        "cut(video,", "import os, signal\n        kill = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n        cut(video,"
    )
    slow = slow.replace("sys.argv[2])\nexcept", "sys.argv[2], on_progress=kill)\nexcept")
    done = subprocess.run([sys.executable, "-c", slow, clip, out], capture_output=True, timeout=120)
    assert done.returncode == -signal.SIGKILL
    assert not out.exists()
    assert [path.name.startswith(".out.mp4.") for path in tmp_path.iterdir()] == [True]
    with Video(clip) as video:
        cut(video, [Piece(0.5, 3.0)], out)
    assert list(tmp_path.iterdir()) == [out]
    decodes(out)


@pytest.mark.slow
def test_memory_does_not_grow_with_the_length(tmp_path: Path) -> None:
    measured = CUT.replace(
        "except SmolVLMError", "    import resource\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)\nexcept SmolVLMError"
    )
    peaks = []
    for minutes in (1, 8):
        source = make_clip(tmp_path / f"{minutes}.mp4", minutes * 60 * 25, options={"g": "50", "preset": "ultrafast"}, size=(320, 240))
        began = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", measured, source, tmp_path / f"out{minutes}.mp4"], capture_output=True, text=True, check=True
        )
        assert time.monotonic() - began < 60
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < 16e6, peaks
    assert os.path.getsize(tmp_path / "out8.mp4") > 4 * os.path.getsize(tmp_path / "out1.mp4")
