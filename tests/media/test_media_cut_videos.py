"""Videos whose end is missing: refused with what is there, or told; never answered about in silence. ffprobe counts the frames."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers_media import SMALL, decode_all, encoded, numbered_frame
from helpers_video_codes import encoders, ffmpeg, have_ffmpeg, run
from smolvlm.errors import VideoError
from smolvlm.media import MediaOptions, sample_video
from smolvlm.media.file_end import ends_early
from smolvlm.media.sources import open_source
from smolvlm.media.video import square_frame

pytestmark = pytest.mark.skipif(not have_ffmpeg(), reason="needs ffmpeg and ffprobe")

FRAMES = 100  # 4 s
_X264 = ("-c:v", "libx264", "-preset", "veryfast", "-g", "12", "-pix_fmt", "yuv420p")
_VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "8", "-g", "12")
_SOUND = ("-map", "0:v", "-map", "1:a")
PROMISED = {  # the header says how long the whole is
    "sound.mkv": (*_SOUND, *_X264, "-c:a", "aac"),
    "silent.mkv": _X264,
    "small-clusters.mkv": (*_X264, "-cluster_time_limit", "500"),
    "sound.webm": (*_SOUND, *_VP8, "-c:a", "libopus"),
    "indexed.mp4": (*_X264, "-movflags", "dash+global_sidx+frag_keyframe"),
    "sound.flv": (*_SOUND, *_X264, "-c:a", "aac"),
    "sound.wmv": (*_SOUND, "-c:v", "wmv2", "-c:a", "wmav2"),
    "studio.mxf": ("-c:v", "mpeg2video", "-g", "12"),
}
OPEN = {  # nothing says so: recorders and live streams look the same while they are written
    "live.webm": (*_VP8, "-live", "1"),
    "live.mkv": (*_X264, "-f", "matroska", "-live", "1"),
    "fragments.mp4": (*_X264, "-movflags", "frag_keyframe+empty_moov"),
    "cmaf.mp4": (*_X264, "-movflags", "cmaf"),
    "half-fragments.mp4": (*_X264, "-movflags", "frag_keyframe"),
    "sound.ts": (*_SOUND, *_X264, "-c:a", "aac"),
    "camera.m2ts": _X264,
    "sound.ogv": (*_SOUND, "-c:v", "libtheora", "-g", "12", "-c:a", "libvorbis"),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Each container, written once. `piped.mkv` went through a pipe: no size of it was filled in afterwards."""
    folder = tmp_path_factory.mktemp("whole")
    source = ("-f", "lavfi", "-i", f"testsrc2=size=128x96:rate=25:duration={FRAMES / 25}", "-f", "lavfi", "-i", "sine=d=4")
    made = {}
    for name, arguments in (PROMISED | OPEN).items():
        if all(a in encoders() for a in arguments if a in ("libvpx", "libtheora", "libx264")):
            made[name] = folder / name
            ffmpeg(*source, *([] if "1:a" in arguments else ["-map", "0:v"]), *arguments, made[name])
    made["piped.mkv"] = folder / "piped.mkv"
    made["piped.mkv"].write_bytes(ffmpeg(*source, "-map", "0:v", *_X264, "-f", "matroska", "-"))
    return made


def _cut(path: Path, folder: Path, at: int) -> Path:
    cut = folder / f"cut-{path.name}"
    cut.write_bytes(path.read_bytes()[:at])
    return cut


def _counted(path: Path) -> int:
    return int(
        run(
            "ffprobe",
            "-v",
            "quiet",
            "-select_streams",
            "v:0",
            "-count_frames",
            "-show_entries",
            "stream=nb_read_frames",
            "-of",
            "csv=p=0",
            path,
        )
        .split()[0]
        .rstrip(b",")
    )


@pytest.mark.slow
def test_whole_files_are_whole(whole: dict[str, Path]) -> None:
    for name, path in whole.items():
        assert ends_early(open_source(path)) is None, name
        assert sample_video(path, SMALL).warnings == (), name


@pytest.mark.parametrize("name", PROMISED)
def test_a_header_that_promises_more_is_believed(whole: dict[str, Path], tmp_path: Path, name: str) -> None:
    """As with the frames that an MP4's index counts: refused, with what is there; the remedy works, on the same frames."""
    if name not in whole:
        pytest.skip(f"this ffmpeg cannot encode {name}")
    size = whole[name].stat().st_size
    for share in (0.5, 0.8):
        cut = _cut(whole[name], tmp_path, int(size * share))
        with pytest.raises(VideoError, match="is cut off: it holds") as caught:
            sample_video(cut, SMALL)
        there, total = map(int, re.findall(r"\d+", str(caught.value).split("it holds")[1])[:2])
        assert abs(there - _counted(cut)) <= 1  # the last frame may be in part there
        assert abs(total - FRAMES) <= 3  # the sound may be a little longer
        end = float(str(caught.value).split("end=")[1].split()[0])
        video = sample_video(cut, SMALL, MediaOptions(end=end - 0.2, max_frames=4))
        expected, _ = decode_all(whole[name])
        assert video.warnings == ()
        assert all(np.array_equal(f, square_frame(expected[i], SMALL)) for i, f in zip(video.indices, video.frames, strict=True))


@pytest.mark.parametrize("name", [*OPEN, "piped.mkv"])
def test_what_may_still_be_written_is_read_and_told(whole: dict[str, Path], tmp_path: Path, name: str) -> None:
    if name not in whole:
        pytest.skip(f"this ffmpeg cannot encode {name}")
    size = whole[name].stat().st_size
    for at in (int(size * 0.5) | 1, size * 9 // 10 | 1):  # no packet of 188 bytes ends at an odd place of both
        cut = _cut(whole[name], tmp_path, at)
        video = sample_video(cut, SMALL)
        assert abs(video.info.total_num_frames - _counted(cut)) <= 2
        assert [w for w in video.warnings if "ends early" in w], at
        inside = MediaOptions(end=1.0, fps=4)
        assert sample_video(cut, SMALL, inside).warnings == ()


@pytest.mark.parametrize("name", ["small-clusters.mkv", "indexed.mp4"])
def test_cut_exactly_between_two_parts(whole: dict[str, Path], tmp_path: Path, name: str) -> None:
    """No part is broken; only the header knows that there were more."""
    data = whole[name].read_bytes()
    mark = b"\x1f\x43\xb6\x75" if name.endswith("mkv") else b"moof"
    at = data.rindex(mark) - (0 if name.endswith("mkv") else 4)
    with pytest.raises(VideoError, match="is cut off"):
        sample_video(_cut(whole[name], tmp_path, at), SMALL)


def test_a_recording_is_never_refused_wherever_its_writer_stands(whole: dict[str, Path], tmp_path: Path) -> None:
    for name in ("live.webm", "piped.mkv", "fragments.mp4"):
        size = whole[name].stat().st_size
        for at in range(size // 3, size, size // 17):
            assert sample_video(_cut(whole[name], tmp_path, at), SMALL, MediaOptions(max_frames=1)).frames.shape[0] == 1


def test_files_that_were_joined_by_their_bytes(whole: dict[str, Path], tmp_path: Path) -> None:
    """Where libav reads on behind the first video nothing is lost; where it does not, that is said."""
    for name in ("silent.mkv", "sound.ts", "plain.mp4"):
        path = tmp_path / name
        if name == "plain.mp4":
            ffmpeg("-i", whole["silent.mkv"], "-c", "copy", tmp_path / "one.mp4")
        path.write_bytes((whole.get(name) or tmp_path / "one.mp4").read_bytes() * 2)
        video = sample_video(path, SMALL)
        told = any("several videos, one behind the other; only the first was used" in w for w in video.warnings)
        assert video.info.total_num_frames == _counted(path)
        assert told is (name == "plain.mp4")
    assert sample_video(tmp_path / "one.mp4", SMALL).warnings == ()
    assert "only the first was used" in sample_video(_animation("GIF") * 2, SMALL, MediaOptions(fps=10)).warnings[0]


def _animation(format: str) -> bytes:
    frames = [Image.fromarray(numbered_frame(i)) for i in range(12)]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=100)


def test_an_animated_png_says_how_many_frames_it_should_have() -> None:
    data = _animation("PNG")
    at = [m.start() - 4 for m in re.finditer(b"fcTL", data)][7]  # before the eighth frame: what is there is sound
    with pytest.raises(VideoError, match="it holds 7 of 12 frames"):
        sample_video(data[:at], SMALL, MediaOptions(fps=10))


def test_an_animated_gif_counts_what_can_be_decoded() -> None:
    data = _animation("GIF")
    cut = data[: len(data) * 6 // 10]
    image, there = Image.open(io.BytesIO(cut)), 0
    try:
        while True:
            image.seek(there)
            image.load()
            there += 1
    except (EOFError, OSError):
        pass
    with pytest.raises(VideoError, match=f"it holds {there} of {there + 1} frames"):
        sample_video(cut, SMALL, MediaOptions(fps=10))
    assert sample_video(data, SMALL, MediaOptions(fps=10)).warnings == ()
    assert "ends early" in sample_video(data[:-1], SMALL, MediaOptions(fps=10)).warnings[0]


@pytest.mark.parametrize("format", ["WEBP", "AVIF"])
def test_other_animations_are_refused_as_what_they_are(format: str) -> None:
    data = _animation(format)
    with pytest.raises(VideoError, match=rf"the animation \({format}\) is damaged or cut off"):
        sample_video(data[: len(data) * 8 // 10], SMALL)
