"""Files that are taken for pictures or videos, made by ffmpeg: named as what they are, and rows of pictures told."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import pytest
from PIL import Image

from helpers_media import SMALL, encoded, photo
from helpers_video_codes import ffmpeg, have_ffmpeg
from smolvlm.errors import ImageError, SourceError, VideoError
from smolvlm.media import load_image, media_kind, open_source, sample_video
from smolvlm.media.apng import SIGNATURE, chunk

needs_ffmpeg = pytest.mark.skipif(not have_ffmpeg(), reason="needs ffmpeg and ffprobe")
_TONE = ("-f", "lavfi", "-i", "sine=d=0.2")


@needs_ffmpeg
@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("a.mp3", "a sound file (MP3)"),
        ("a.wav", "a sound file (WAV)"),
        ("a.flac", "a sound file (FLAC)"),
        ("a.aiff", "a sound file (AIFF)"),
        ("a.aac", "a sound file (MP3 or AAC)"),
    ],
)
def test_sound(tmp_path: Path, name: str, words: str) -> None:
    ffmpeg(*_TONE, tmp_path / name)
    with pytest.raises(SourceError) as refused:
        media_kind(open_source(tmp_path / name))
    assert words in str(refused.value)
    with pytest.raises(VideoError) as refused_as_video:
        sample_video(tmp_path / name, SMALL)
    assert words in str(refused_as_video.value)


@needs_ffmpeg
def test_sound_with_a_cover_is_not_called_a_video_without_video(tmp_path: Path) -> None:
    (tmp_path / "cover.png").write_bytes(encoded(photo(32, 32), "PNG"))
    ffmpeg(
        *_TONE,
        "-i",
        tmp_path / "cover.png",
        "-map",
        "0",
        "-map",
        "1",
        "-c:v",
        "png",
        "-disposition:v",
        "attached_pic",
        tmp_path / "song.m4a",
    )
    with pytest.raises(VideoError, match="is a sound file; the only picture in it is its cover"):
        sample_video(tmp_path / "song.m4a", SMALL)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"#EXTM3U\n#EXTINF:5,\nx.ts\n", "a playlist (M3U): pass the video that it names"),
        (b"<?xml version='1.0'?><MPD><Period/></MPD>", "a playlist (DASH)"),
        (b"1\n00:00:00,000 --> 00:00:01,000\nGr\xc3\xbc\xc3\x9fe\n", "a text"),
        ("これは画像ではありません。".encode() * 30, "a text"),
        (b'{"an": "object"}', "a text"),
    ],
)
def test_texts(data: bytes, words: str) -> None:
    with pytest.raises(SourceError) as refused:
        media_kind(open_source(data))
    assert words in str(refused.value)


def test_binary_files_are_not_called_texts() -> None:
    for data in (b"\0\1\0\0" + bytes(300), bytes(range(256)), b"MZ\x90\0\3" * 20):
        with pytest.raises(SourceError) as refused:
            media_kind(open_source(data))
        assert "it is a text" not in str(refused.value)


@needs_ffmpeg
def test_a_raw_mjpeg_stream_is_told(tmp_path: Path) -> None:
    ffmpeg("-f", "lavfi", "-i", "testsrc2=size=64x48:duration=0.4", "-c:v", "mjpeg", "-f", "mjpeg", tmp_path / "camera.mjpeg")
    found: list[str] = []
    assert load_image(tmp_path / "camera.mjpeg", on_warning=found.append).size == (64, 48)
    assert [w for w in found if "several pictures, one behind the other" in w]


def test_a_row_of_pictures_is_one_of_equal_size() -> None:
    large, small = photo(60, 40), photo(30, 20)
    for format in ("JPEG", "PNG"):
        one = encoded(large, format)
        for second, told in ((one, True), (encoded(small, format), False), (bytes(40), False), (b"", False)):
            found: list[str] = []
            load_image(one + second, on_warning=found.append)
            assert bool(found) is told, (format, len(second))


def _png(*where: int, kind: bytes = b"zTXt", count: int = 1) -> bytes:
    data = encoded(photo(16, 16), "PNG")
    bodies = {b"zTXt": b"Comment\0\0" + zlib.compress(bytes(80_000_000)), b"tEXt": b"Comment\0" + b"a" * 900_000}
    text = chunk(kind, bodies[kind]) * count
    at = where[0] if where[0] > 0 else len(data) + where[0]
    return data[:at] + text + data[at:]


@pytest.mark.parametrize("data", [_png(33), _png(-12), _png(33, kind=b"tEXt", count=80)], ids=["before", "behind", "many"])
def test_a_png_with_endless_metadata_is_not_called_damaged(data: bytes) -> None:
    assert data.startswith(SIGNATURE)
    with pytest.raises(ValueError, match="too large|Too much"):
        Image.open(io.BytesIO(data)).load()  # what Pillow says
    with pytest.raises(ImageError, match="its metadata unpack to more than is read; remove them"):
        load_image(data)
