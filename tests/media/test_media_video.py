"""Videos as the model sees them: pixels against the reference's processor, spans, caps, lists of frames, progress."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers_media import BIG, OFFICIAL, SMALL, decode_all, encoded, numbered_frame, photo, reference_video_utils, reference_videos
from smolvlm.config import ProcessorConfig
from smolvlm.errors import ImageError, SourceError, VideoError
from smolvlm.media import MediaOptions, SourcePolicy, load_image, normalize, open_source, probe_video, sample_video, split_image
from smolvlm.media.video import square_frame


@pytest.mark.parametrize("config", [OFFICIAL, BIG, replace(OFFICIAL, video_longest_edge=2048)], ids=["512", "384", "2048"])
def test_frames_equal_the_reference_processor(examples: Path, config: ProcessorConfig) -> None:
    """The real clip, decoded, sampled and resized by `transformers` (its torchvision LANCZOS) and by us (Pillow's)."""
    reference = reference_videos(config)
    frames, metadata = reference_video_utils().read_video_pyav(
        str(examples / "bigbuckbunny.mp4"), sample_indices_fn=lambda metadata, **_: reference.sample_frames(metadata)
    )
    expected = reference(videos=[frames], video_metadata=[metadata], do_sample_frames=False, return_tensors="np")
    video = sample_video(examples / "bigbuckbunny.mp4", config)
    assert list(video.indices) == list(metadata.frames_indices)
    assert np.allclose(video.timestamps_s, metadata.timestamps, rtol=0, atol=1e-12)
    assert (video.duration_s, video.info.fps, video.info.total_num_frames) == (metadata.duration, metadata.fps, metadata.total_num_frames)
    assert (video.info.width, video.info.height) == (metadata.width, metadata.height)
    difference = np.abs(normalize(video.frames, config) - expected["pixel_values"][0])
    # Two resizes through 8 bits: each may round one level (2 / 255) the other way, and almost never both do.
    assert difference.max() <= 2 * 2 / 255 + 1e-6
    assert (difference > 2 / 255 + 1e-6).mean() < 1e-5
    assert difference.mean() <= 0.02 * 2 / 255  # a fiftieth of a level


def test_a_frame_is_made_like_an_unsplit_picture() -> None:
    """Below the video's longest edge the two rules meet: exact equality with the image path."""
    image = photo(300, 170)
    config = replace(SMALL, longest_edge=SMALL.video_longest_edge)
    tiled = split_image(image, config, MediaOptions(image_splitting=False))
    assert np.array_equal(square_frame(np.asarray(image), SMALL), tiled.tiles[0])


def test_every_way_in(clips: dict[str, Path]) -> None:
    path = clips["sound.mp4"]
    data = path.read_bytes()
    expected = sample_video(path, SMALL)
    import base64

    with path.open("rb") as stream, open_source(data) as opened:
        for source in (
            str(path),
            data,
            bytearray(data),
            io.BytesIO(data),
            stream,
            opened,
            "data:video/mp4;base64," + base64.b64encode(data).decode(),
        ):
            got = sample_video(source, SMALL)
            assert np.array_equal(got.frames, expected.frames)
            assert got.indices == expected.indices


def test_names_are_paths_and_never_protocols(clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """libav reads `concat:`, `http:` and `%03d` in names as orders; a file may be called like that."""
    monkeypatch.chdir(tmp_path)
    for name in ("concat:a|b.mp4", "http:x.mp4", "frame%03d.mp4", "-i.mp4", "a#b?c.mp4", "ünï 視頻.mp4"):
        (tmp_path / name).write_bytes(clips["cfr.mp4"].read_bytes())
        assert len(sample_video(name, SMALL).indices) == 5, name


def test_caller_decides_rate_and_cap(clips: dict[str, Path]) -> None:
    path = clips["cfr.mp4"]  # 120 frames at 25: 4.8 s
    assert len(sample_video(path, SMALL).indices) == 5
    assert len(sample_video(path, SMALL, MediaOptions(fps=5)).indices) == 24
    assert len(sample_video(path, SMALL, MediaOptions(fps=25)).indices) == 64  # a cap, not a count
    assert len(sample_video(path, SMALL, MediaOptions(fps=25, max_frames=200)).indices) == 120
    assert len(sample_video(path, SMALL, MediaOptions(max_frames=3)).indices) == 3
    assert len(sample_video(path, SMALL, MediaOptions(max_frames=64)).indices) == 5
    assert len(sample_video(path, replace(SMALL, fps=2.0, max_frames=7)).indices) == 7


def test_spans(clips: dict[str, Path]) -> None:
    path = clips["cfr.mp4"]
    got = sample_video(path, SMALL, MediaOptions(start=2.0, end=4.0))
    assert got.indices == (50, 100)  # round(2 s * 1 fps) frames from 2.0 s to 4.0 s, both ends included
    assert got.timestamps_s == (2.0, 4.0)
    assert got.duration_s == 4.8
    assert sample_video(path, SMALL, MediaOptions(start=3.0)).indices[0] == 75
    assert sample_video(path, SMALL, MediaOptions(end=0.0)).indices == (0,)
    assert sample_video(path, SMALL, MediaOptions(end=100.0)).indices[-1] == 119
    assert sample_video(path, SMALL, MediaOptions(start=1.2, end=1.2)).indices == (30,)
    assert sample_video(path, SMALL, MediaOptions(start=1.21, end=1.22)).indices == (30,)  # shown from 1.20 to 1.24
    with pytest.raises(VideoError, match="start=4.8 is past its end; it lasts 4.80 s"):
        sample_video(path, SMALL, MediaOptions(start=4.8))


def test_progress(clips: dict[str, Path]) -> None:
    seen: list[tuple[int, int]] = []
    video = sample_video(clips["cfr.mp4"], SMALL, on_frame=lambda done, total: seen.append((done, total)))
    assert seen == [(i + 1, 5) for i in range(5)]
    assert video.decoded_frames >= 5


def test_probe_decodes_nothing(clips: dict[str, Path]) -> None:
    info = probe_video(clips["turned_90.mp4"])
    assert (info.total_num_frames, info.fps, info.width, info.height, info.codec) == (30, 25.0, 128, 96, "h264")


def test_lists_of_frames(tmp_path: Path) -> None:
    arrays = [numbered_frame(i) for i in range(6)]
    expected = np.stack([square_frame(a, SMALL) for a in arrays])
    paths = []
    for i, array in enumerate(arrays):
        paths.append(tmp_path / f"{i}.png")
        load_image(array).save(paths[-1])
    stacked = np.stack(arrays)
    for source in (
        arrays,
        tuple(arrays),
        [load_image(a) for a in arrays],
        paths,
        [str(p) for p in paths],
        stacked,
        stacked.transpose(0, 3, 1, 2),
        stacked / 255.0,
        [p.read_bytes() for p in paths],
    ):
        video = sample_video(source, SMALL)
        assert np.array_equal(video.frames, expected)
        assert video.indices == tuple(range(6))
        assert video.timestamps_s == tuple(i / 24 for i in range(6))
        assert video.duration_s == 5 / 24  # the last frame's time: what the reference states
        assert video.decoded_frames == 0


def test_lists_have_a_rate_a_cap_and_spans() -> None:
    arrays = [numbered_frame(i) for i in range(100)]
    video = sample_video(arrays, SMALL, MediaOptions(fps=2))
    assert len(video.indices) == 64
    assert (video.indices[0], video.indices[-1], video.timestamps_s[-1]) == (0, 99, 49.5)
    assert sample_video(arrays, SMALL, MediaOptions(max_frames=3)).indices == (0, 49, 99)
    assert sample_video(arrays, SMALL, MediaOptions(fps=10, start=2.0, end=2.5)).indices == tuple(range(20, 26))
    with pytest.raises(VideoError, match="no frame of the list"):
        sample_video(arrays, SMALL, MediaOptions(fps=10, start=10.0))


def test_a_dark_frame_of_a_float_video_stays_dark() -> None:
    video = np.zeros((2, 8, 8, 3), np.float32)
    video[0], video[1] = 1.0, 200.0
    assert sample_video(video, SMALL).frames[:, 0, 0, 0].tolist() == [1, 200]


def test_bad_lists() -> None:
    with pytest.raises(VideoError, match="empty"):
        sample_video([], SMALL)
    for shape in ((4, 8, 8), (0, 8, 8, 3), (2, 3, 4, 5, 3)):
        with pytest.raises(VideoError, match="shape"):
            sample_video(np.zeros(shape, np.uint8), SMALL)
    with pytest.raises(ImageError, match="frame 1 of the list"):
        sample_video([numbered_frame(0), b"not a picture"], SMALL)
    with pytest.raises(SourceError, match="frame 0 of the list: .*no such file"):
        sample_video(["missing.png"], SMALL)
    with pytest.raises(ImageError, match="shape"):
        sample_video(np.zeros((2, 8, 8, 5), np.uint8), SMALL)


def test_pictures_are_no_videos(examples: Path) -> None:
    with pytest.raises(VideoError, match=r"coffee\.png is a picture \(PNG\), not a video"):
        sample_video(examples / "coffee.png", SMALL)
    with pytest.raises(VideoError, match="is a picture"):
        sample_video(encoded(photo(9, 9), "WEBP"), SMALL)


def test_policy_reaches_listed_frames(examples: Path) -> None:
    with pytest.raises(SourceError, match="local paths are not allowed"):
        sample_video([str(examples / "coffee.png")], SMALL, policy=SourcePolicy(allow_paths=False))


@pytest.mark.slow
def test_memory_holds_one_frame_at_full_size(tmp_path: Path) -> None:
    """40 frames of 1080p are 250 MB as RGB; sampling them may add a small part of that."""
    import psutil

    from helpers_media import make_clip

    path = make_clip(tmp_path / "hd.mp4", 40, size=(1920, 1080), options={"preset": "ultrafast", "g": "40"})
    sample_video(path, SMALL, MediaOptions(fps=1))  # libav's own buffers and threads
    before = psutil.Process().memory_info().rss
    video = sample_video(path, SMALL, MediaOptions(fps=25))
    grown = psutil.Process().memory_info().rss - before
    assert len(video.indices) == 40
    assert grown < video.frames.nbytes * 2 + 60e6, f"{grown / 1e6:.0f} MB"


def test_reference_decoding_is_what_we_decode(examples: Path) -> None:
    """The whole clip frame by frame: the colours are libav's own conversion, as in the reference."""
    expected, _ = decode_all(examples / "bigbuckbunny.mp4")
    video = sample_video(examples / "bigbuckbunny.mp4", SMALL, MediaOptions(fps=4))
    for i, frame in zip(video.indices, video.frames, strict=True):
        assert np.array_equal(frame, square_frame(expected[i], SMALL))
