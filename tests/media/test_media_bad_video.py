"""Files that are no videos, or not whole ones: one sentence each, naming the file and the remedy; nothing is allocated
by a header's word."""

from __future__ import annotations

import struct
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from helpers_media import SMALL, decode_all, make_clip
from smolvlm.errors import SourceError, VideoError
from smolvlm.media import Limits, MediaOptions, SourcePolicy, sample_video
from smolvlm.media.video import square_frame


@pytest.fixture(scope="module")
def faststart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 s whose index stands before the data, as on the web."""
    return make_clip(
        tmp_path_factory.mktemp("fast") / "web.mp4",
        250,
        options={"g": "25", "preset": "veryfast"},
        container_options={"movflags": "faststart"},
    )


def _fails(path: Path, message: str, **options: float) -> str:
    with pytest.raises(VideoError, match=message) as caught:
        sample_video(path, SMALL, MediaOptions(**options))  # type: ignore[arg-type]
    text = str(caught.value)
    assert path.name in text
    assert "\n" not in text
    return text


def test_index_missing(clips: dict[str, Path], tmp_path: Path) -> None:
    data = clips["cfr.mp4"].read_bytes()
    path = tmp_path / "cut.mp4"
    path.write_bytes(data[: data.index(b"moov") - 4])
    assert "copy or download it again" in _fails(path, r"cut off before its index \(moov\)")


def test_data_ends_before_a_sampled_frame(faststart: Path, tmp_path: Path) -> None:
    data = faststart.read_bytes()
    path = tmp_path / "half.mp4"
    path.write_bytes(data[: int(len(data) * 0.6)])
    text = _fails(path, r"is cut off: it holds \d+ of 250 frames")
    end = float(text.split("end=")[1].split()[0])
    assert 4 < end < 8
    expected, _ = decode_all(faststart)
    video = sample_video(path, SMALL, MediaOptions(end=end))  # the remedy works
    for i, frame in zip(video.indices, video.frames, strict=True):
        assert np.array_equal(frame, square_frame(expected[i], SMALL))
    _fails(path, "is cut off", start=7.0)


def test_transport_streams_end_anywhere(clips: dict[str, Path], tmp_path: Path) -> None:
    """A recording that was stopped has no count to fall short of: what is there is the video."""
    data = clips["sound.ts"].read_bytes()
    path = tmp_path / "stopped.ts"
    path.write_bytes(data[: len(data) * 2 // 3])
    video = sample_video(path, SMALL)
    assert 60 < video.info.total_num_frames < 110
    expected, _ = decode_all(clips["sound.ts"])
    for i, frame in zip(video.indices[:-1], video.frames[:-1], strict=True):
        assert np.array_equal(frame, square_frame(expected[i], SMALL))


def test_no_video_stream(tmp_path: Path) -> None:
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("aac", rate=48000)
        for n in range(20):
            frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), "fltp", layout="stereo")
            frame.sample_rate, frame.pts = 48000, n * 1024
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    _fails(path, r"has no video stream \(it holds audio\)")


def test_not_videos(tmp_path: Path) -> None:
    cases = {
        "text.mp4": b"a text file\n" * 100,
        "zeros.mp4": bytes(5000),
        "page.mp4": b"<html></html>" * 50,
        "ebml.mkv": b"\x1a\x45\xdf\xa3" + bytes(100),
        "tiny.mp4": b"\0\0\0\x08ftyp",
    }
    for name, data in cases.items():
        (tmp_path / name).write_bytes(data)
        _fails(tmp_path / name, "cannot be read as a video|holds no frame|has no video stream")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for path, message in ((tmp_path / "empty.mp4", "is empty"), (tmp_path / "none.mp4", "no such file"), (tmp_path, "is a folder")):
        with pytest.raises(SourceError, match=message):
            sample_video(path, SMALL)


def test_playlists_open_nothing(clips: dict[str, Path], tmp_path: Path) -> None:
    """Formats that only name other files or hosts are not read, whatever they are called."""
    inside = clips["cfr.mp4"]
    lists = {
        "a.m3u8": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\nfile://{inside}\n#EXT-X-ENDLIST\n",
        "b.mp4": f"ffconcat version 1.0\nfile '{inside}'\n",
        "c.sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n",
        "d.mpd": f"<?xml version='1.0'?><MPD><Period><BaseURL>{inside}</BaseURL></Period></MPD>",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        _fails(tmp_path / name, "cannot be read as a video")


def _patched(path: Path, target: Path, kind: bytes, at: int, values: bytes) -> Path:
    data = bytearray(path.read_bytes())
    start = data.index(kind) + 4 + at
    data[start : start + len(values)] = values
    target.write_bytes(data)
    return target


def test_header_of_17_million_frames(clips: dict[str, Path], tmp_path: Path) -> None:
    """libav alone takes 1.3 GB for this header; it is refused before libav sees it."""
    for kind, at in ((b"stsz", 4), (b"stsz", 8)):
        count = struct.pack(">II", 1, 17_000_000) if at == 4 else struct.pack(">I", 17_000_000)
        path = _patched(clips["cfr.mp4"], tmp_path / "many.mp4", kind, at, count)
        _fails(path, "claims 17000000 samples in [0-9]+ bytes")
    path = _patched(clips["fragmented.mp4"], tmp_path / "trun.mp4", b"trun", 4, struct.pack(">I", 17_000_000))
    _fails(path, "claims 170[0-9]+ samples in")


def test_avi_header_that_lies(clips: dict[str, Path], tmp_path: Path) -> None:
    data = bytearray(clips["mpeg4.avi"].read_bytes())
    for at in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data[at : at + 4] = struct.pack("<I", 17_000_000)
    path = tmp_path / "lies.avi"
    path.write_bytes(data)
    _fails(path, "is cut off: it holds 60 of 17000000 frames")
    assert sample_video(path, SMALL, MediaOptions(end=2.0)).indices[-1] == 50


def test_frames_beyond_the_limit(clips: dict[str, Path]) -> None:
    limits = Limits(max_video_pixels=128 * 96 - 1)
    for name in ("cfr.mp4", "vp9.webm", "mpeg4.avi", "sound.ts"):
        with pytest.raises(VideoError, match="128 x 96 pixels, more than the limit|cannot be"):
            sample_video(clips[name], SMALL, policy=SourcePolicy(limits=limits))
    assert sample_video(clips["cfr.mp4"], SMALL, policy=SourcePolicy(limits=Limits(max_video_pixels=128 * 96)))


def test_damaged_in_the_middle(clips: dict[str, Path], tmp_path: Path) -> None:
    """A group of pictures is lost: what is left is numbered anew, and keeps its real times and the whole duration."""
    data = bytearray(clips["cfr.mp4"].read_bytes())
    middle = data.index(b"mdat") + len(data) // 3
    data[middle : middle + 4000] = np.random.default_rng(1).bytes(4000)
    path = tmp_path / "noisy.mp4"
    path.write_bytes(data)
    expected, _ = decode_all(clips["cfr.mp4"])
    video = sample_video(path, SMALL)
    assert len(video.frames) == len(video.indices) == len(video.timestamps_s)
    assert 80 < video.info.total_num_frames < 120
    assert video.duration_s == 4.8
    lost = 0
    for i, frame, time in zip(video.indices, video.frames, video.timestamps_s, strict=True):
        number = round(time * 25)
        lost = max(lost, number - i)
        if number < 24 or number >= 96:  # outside the damaged groups
            assert np.array_equal(frame, square_frame(expected[number], SMALL)), (i, time)
    assert lost == 120 - video.info.total_num_frames


def test_no_output_of_libav(clips: dict[str, Path], tmp_path: Path) -> None:
    """libav writes its complaints to the terminal unless told not to; the library prints nothing."""
    data = bytearray(clips["cfr.mp4"].read_bytes())
    data[len(data) // 3 : len(data) // 3 + 4000] = bytes(4000)
    path = tmp_path / "noisy.mp4"
    path.write_bytes(data)
    code = (
        "import sys, logging; logging.disable(); from smolvlm.media import sample_video\n"
        "from smolvlm.config import ProcessorConfig\nfrom smolvlm.errors import SmolVLMError\n"
        "try: sample_video(sys.argv[1], ProcessorConfig())\nexcept SmolVLMError: pass"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
