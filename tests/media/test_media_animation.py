"""Animated pictures: a video where nobody says otherwise, with the times and pixels that other decoders find."""

from __future__ import annotations

import io
import struct
import subprocess
import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from helpers_media import SMALL, numbered_frame, read_number
from helpers_pictures import encoded
from smolvlm.errors import ImageError, ParamsError, VideoError
from smolvlm.media import MediaOptions, SourcePolicy, load_image, media_kind, open_source, probe_video, sample_video
from smolvlm.media.animation import AnimationReader
from smolvlm.media.limits import Limits
from smolvlm.media_parts import media_parts

DELAYS_MS = [100, 50, 30, 20, 200, 40, 500, 30, 100, 60]
STARTS_S = [0, 0.1, 0.15, 0.18, 0.2, 0.4, 0.44, 0.94, 0.97, 1.07]  # summed by hand
FORMATS = {"GIF": {}, "WEBP": {"lossless": True}, "PNG": {}, "AVIF": {"quality": 90}}
EVERY = MediaOptions(fps=60, max_frames=64)


def _animation(format: str, delays: list[int] | None = None, **options: object) -> bytes:
    delays = delays or DELAYS_MS
    frames = [Image.fromarray(numbered_frame(i)) for i in range(len(delays))]
    if format == "GIF":
        frames = [frame.quantize(64) for frame in frames]
    return encoded(frames[0], format, save_all=True, append_images=frames[1:], duration=delays, **{**FORMATS[format], **options})


def _numbers(frames: np.ndarray) -> list[int]:
    return [read_number(np.asarray(Image.fromarray(frame).resize((128, 96)))) for frame in frames]


@pytest.mark.parametrize("format", FORMATS)
def test_every_frame_and_its_time(format: str) -> None:
    source = open_source(_animation(format))
    assert media_kind(source) == "video"
    video = sample_video(source, SMALL, EVERY)
    assert _numbers(video.frames) == list(range(10))
    assert video.timestamps_s == pytest.approx(STARTS_S)
    assert video.duration_s == pytest.approx(1.13)
    info = probe_video(source)
    assert (info.total_num_frames, info.duration_s, info.width, info.height) == (10, video.duration_s, 128, 96)
    assert info.fps == pytest.approx(10 / 1.13)


@pytest.mark.parametrize("format", ["GIF", "PNG", "AVIF"])
def test_times_as_ffprobe_says(format: str, tmp_path: Path) -> None:
    """ffprobe reads these three; its rule for a frame without a time is the same for GIF."""
    delays = [100, 0, 10, 20, 300, 70] if format == "GIF" else [100, 20, 30, 300, 70]
    path = tmp_path / "moving"
    path.write_bytes(_animation(format, delays))
    told = subprocess.run(
        ["ffprobe", "-v", "error", "-show_entries", "frame=pts_time", "-of", "csv=p=0", path], capture_output=True, text=True, check=True
    ).stdout
    times = [float(line.strip(",")) for line in told.split()]
    assert list(sample_video(path, SMALL, EVERY).timestamps_s) == pytest.approx([t - times[0] for t in times], abs=1e-3)


def test_a_frame_without_a_time_is_shown_for_a_tenth_of_a_second() -> None:
    for format, delays, expected in (
        ("GIF", [0, 10, 20, 50], [0, 0.1, 0.2, 0.22]),
        ("WEBP", [0, 10, 20, 50], [0, 0.1, 0.11, 0.13]),
        ("PNG", [0, 10, 20, 50], [0, 0.1, 0.11, 0.13]),
    ):
        video = sample_video(_animation(format, delays), SMALL, EVERY)
        assert video.timestamps_s == pytest.approx(expected), format


def test_frames_that_keep_and_clear_what_was_before() -> None:
    """Partial frames with every way of disposal and blending, put together here by the rules of PNG 3, over white."""
    width, height = 40, 30
    base = Image.new("RGBA", (width, height), (200, 30, 30, 255))
    frames = [base]
    for i, color in enumerate([(30, 200, 30, 255), (30, 30, 200, 255), (10, 10, 10, 90), (220, 220, 40, 255)]):
        frame = Image.new("RGBA", (width, height), (0, 0, 0, 0))
        frame.paste(color, (4 + 5 * i, 3, 14 + 5 * i, 20))
        frames.append(frame)
    for disposal in ([0, 0, 0, 0, 0], [1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [0, 2, 0, 2, 0]):
        data = encoded(frames[0], "PNG", save_all=True, append_images=frames[1:], duration=100, disposal=disposal, blend=1)
        expected = list(_composed(data, width, height))
        with AnimationReader(open_source(data), Limits(), MediaOptions()) as reader:
            got = [pixels for _, pixels in reader.frames(range(len(expected)))]
        assert len(got) == len(expected) == 5
        for mine, other in zip(got, expected, strict=True):
            assert np.abs(mine.astype(int) - other).max() <= 2  # two roundings to 8 bits on the way


def _composed(data: bytes, width: int, height: int) -> Iterator[np.ndarray]:
    """Each frame of an APNG over white: chunk by chunk, blended in float64 (PNG 3, section 11.3.6.2)."""
    canvas, at = np.zeros((height, width, 4)), 8
    header, control, packed = data[16:29], b"", b""
    after: tuple[slice, slice, int, np.ndarray] | None = None

    def finish() -> np.ndarray:
        nonlocal canvas, after
        if after is not None and after[2] == 1:
            canvas[after[:2]] = 0
        elif after is not None and after[2] == 2:
            canvas = after[3]
        w, h, x, y = struct.unpack(">4I", control[4:20])
        body = struct.pack(">II", w, h) + header[8:]
        png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", body) + _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
        new = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA")) / 255.0
        rows, columns = slice(y, y + h), slice(x, x + w)
        after = (rows, columns, control[24], canvas.copy())
        under = canvas[rows, columns]
        if control[25]:
            alpha = new[..., 3:] + under[..., 3:] * (1 - new[..., 3:])
            color = new[..., :3] * new[..., 3:] + under[..., :3] * under[..., 3:] * (1 - new[..., 3:])
            new = np.concatenate([color / np.maximum(alpha, 1e-9), alpha], axis=2)
        canvas[rows, columns] = new
        return (canvas[..., :3] * canvas[..., 3:] + 1 - canvas[..., 3:]) * 255

    while at < len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        if kind in (b"fcTL", b"IEND") and packed:
            yield finish()
            packed = b""
        if kind == b"fcTL":
            control = body
        elif kind in (b"IDAT", b"fdAT"):
            packed += body[4 if kind == b"fdAT" else 0 :]
        at += 12 + size


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_a_gif_equals_libavs_frames_also_with_transparency() -> None:
    frames = [Image.fromarray(numbered_frame(i)).quantize(32) for i in range(4)]
    # Not 3 (restore what was before) in the very first frame, where nothing was: decoders differ.
    for disposal in (0, 1, 2, [1, 3, 3, 3], [0, 2, 3, 1], [2, 3, 3, 0]):
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=100, disposal=disposal)
        with av.open(io.BytesIO(data)) as container:
            expected = [frame.to_ndarray(format="rgba")[..., :3] for frame in container.decode(video=0)]
        with AnimationReader(open_source(data), Limits(), MediaOptions()) as reader:
            for (_, mine), other in zip(reader.frames(range(4)), expected, strict=True):
                assert np.array_equal(mine, other), disposal


def test_what_is_asked_decides(tmp_path: Path) -> None:
    path = tmp_path / "moving.gif"
    path.write_bytes(_animation("GIF"))
    policy = SourcePolicy()
    kinds = {kind: media_parts(path, policy, kind)[0]["type"] for kind in ("auto", "image", "video")}
    assert kinds == {"auto": "video", "image": "image", "video": "video"}
    still = tmp_path / "still.gif"
    still.write_bytes(encoded(Image.fromarray(numbered_frame(3)).quantize(64), "GIF"))
    assert media_parts(still, policy)[0]["type"] == "image"
    with pytest.raises(VideoError, match=r"is a picture \(GIF\), not a video"):
        sample_video(still, SMALL)
    with pytest.raises(ParamsError, match="media_kind='film': expected one of auto, image, video"):
        MediaOptions(media_kind="film")  # type: ignore[arg-type]
    warnings: list[str] = []
    assert read_number(np.asarray(load_image(path, on_warning=warnings.append))) == 0
    assert len(warnings) == 1
    assert "only its first frame was read" in warnings[0]


def test_a_span_and_a_cap() -> None:
    source = open_source(_animation("WEBP"))
    video = sample_video(source, SMALL, MediaOptions(fps=60, start=0.15, end=0.45))
    assert _numbers(video.frames) == [2, 3, 4, 5, 6]
    assert len(sample_video(source, SMALL, MediaOptions(fps=60, max_frames=3)).frames) == 3


def test_an_animation_that_is_cut_off_says_how_much_is_there() -> None:
    data = _animation("GIF")
    with pytest.raises(VideoError, match=r"is cut off: it holds \d of \d+ frames"):
        sample_video(data[: len(data) * 6 // 10], SMALL, EVERY)


def test_the_limits_hold_for_frames() -> None:
    with pytest.raises(VideoError, match="more than the limit of 9000"):
        sample_video(_animation("PNG"), SMALL, policy=SourcePolicy(limits=Limits(max_video_pixels=9000)))


def test_a_png_whose_first_picture_is_not_of_the_animation() -> None:
    frames = [Image.fromarray(numbered_frame(i)) for i in range(4)]
    data = encoded(frames[3], "PNG", save_all=True, append_images=frames[:3], duration=[100, 40, 60], default_image=True)
    video = sample_video(data, SMALL, EVERY)
    assert _numbers(video.frames) == [0, 1, 2]
    assert video.timestamps_s == pytest.approx([0, 0.1, 0.14])


def test_a_video_as_a_picture_is_refused_with_the_remedy(examples: Path) -> None:
    with pytest.raises(ImageError, match="it is a video: pass it as a video"):
        load_image(next(examples.rglob("*.mp4")))
