"""What may be opened and what may not: each refusal is one sentence with the remedy."""

from __future__ import annotations

import base64
import gc
import io
import os
from pathlib import Path

import pytest

from helpers_media import encoded, photo
from smolvlm.errors import SourceError
from smolvlm.media import Limits, Source, SourcePolicy, load_image, media_kind, open_source, sources


def test_labels_are_short_and_printable(tmp_path: Path) -> None:
    data = encoded(photo(300, 300), "PNG")
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    assert len(open_source(url).label) < 80
    assert open_source(b"x").label == "<1 bytes>"
    with pytest.raises(SourceError) as caught:
        open_source("\x1b[31mred\nname" + "x" * 5000)
    assert len(str(caught.value)) < 300
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_opens_more_than_once(tmp_path: Path) -> None:
    path = tmp_path / "x.bin"
    path.write_bytes(b"abc")
    for source in (open_source(path), open_source(b"abc"), open_source(io.BytesIO(b"abc"))):
        for _ in range(2):
            with source.open() as stream:
                assert stream.read() == b"abc"
        assert source.head(2) == b"ab"
        assert open_source(source) is source


def test_large_file_objects_go_to_a_temporary_file() -> None:
    with open_source(io.BytesIO(bytes(65 << 20))) as source:
        path = source.path
        assert path is not None
        assert path.stat().st_size == 65 << 20
    assert not path.exists()
    source = open_source(io.BytesIO(bytes(65 << 20)))
    path = source.path
    del source
    gc.collect()
    assert path is not None
    assert not path.exists()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("", "empty path"),
        ("file:///etc/passwd", "pass the path itself"),
        ("FILE://x", "pass the path itself"),
        ("ftp://host/x.jpg", "pass a path or an http"),
        ("rtsp://host/x", "not opened"),
        ("no/such/file.jpg", "no such file"),
        ("a\0b.jpg", "not a path"),
        ("x" * 5000, "not a path|no such file"),
        (b"", "empty"),
        (bytearray(), "empty"),
        (io.BytesIO(b""), "empty or already read"),
        (io.StringIO("text"), "binary mode"),
        (12, "is not a media source"),
        ("data:image/png;base64", "needs a comma"),
        ("data:image/png;base64,", "no content"),
        ("data:image/png;base64,@@@@", "not valid base64"),
        ("data:image/png;base64,A", "not valid base64"),
        ("data:,", "no content"),
        ("/dev/zero", "not a regular file"),
    ],
)
def test_refusals(source: object, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(source)  # type: ignore[arg-type]


def test_paths_of_every_wrong_kind(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for name, message in (("empty", "is empty"), ("pipe", "not a regular file"), ("loop", "not a path"), ("", "is a folder")):
        with pytest.raises(SourceError, match=message):
            open_source(tmp_path / name)
    with pytest.raises(SourceError, match="no such file"):
        open_source(tmp_path / "empty" / "inside")


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(b"x")
    monkeypatch.setattr(os, "access", lambda *_: False)  # root, who runs the tests, may read everything
    with pytest.raises(SourceError, match="permission denied"):
        open_source(path)


def test_a_file_that_disappears(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    path.write_bytes(encoded(photo(4, 4), "PNG"))
    source = open_source(path)
    path.unlink()
    with pytest.raises(SourceError, match="no such file"):
        load_image(source)


def test_policy() -> None:
    closed = SourcePolicy(allow_paths=False, allow_urls=False)
    with pytest.raises(SourceError, match="local paths are not allowed"):
        open_source("/etc/hostname", closed)
    with pytest.raises(SourceError, match="local paths are not allowed"):
        open_source(Path("/etc/hostname"), closed)
    with pytest.raises(SourceError, match="URLs are not allowed"):
        open_source("https://example.org/x.jpg", closed)
    assert open_source(b"x", closed).data == b"x"


def test_sizes_are_bounded() -> None:
    small = SourcePolicy(limits=Limits(max_data_url_bytes=9, max_stream_bytes=9))
    assert open_source("data:;base64," + base64.b64encode(bytes(9)).decode(), small).data == bytes(9)
    with pytest.raises(SourceError, match="limit of 9 bytes"):
        open_source("data:;base64," + base64.b64encode(bytes(10)).decode(), small)
    with pytest.raises(SourceError, match="limit of 9 bytes"):
        open_source(io.BytesIO(bytes(10)), small)

    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return bytes(size)

    with pytest.raises(SourceError, match="limit of 9 bytes"):
        open_source(Endless(), small)


def test_a_file_object_that_fails() -> None:
    class Broken(io.RawIOBase):
        def read(self, _: int = -1) -> bytes:
            raise RuntimeError("the disk is on fire")

    with pytest.raises(SourceError, match="the disk is on fire"):
        open_source(Broken())


@pytest.mark.parametrize("format", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "JPEG2000", "AVIF"])
def test_kind_of_pictures(format: str) -> None:
    assert media_kind(open_source(encoded(photo(32, 32), format))) == "image"


def test_kind_of_everything_else(clips: dict[str, Path], examples: Path, tmp_path: Path) -> None:
    for name, path in clips.items():
        copy = tmp_path / "no_suffix"
        copy.write_bytes(path.read_bytes())
        assert media_kind(open_source(copy)) == "video", name
    assert media_kind(open_source(examples / "bigbuckbunny.mp4")) == "video"
    for data in (
        b"hello, world\n" * 50,
        b"\0" * 500,
        b"%PDF-1.7\n",
        b"ID3\4\0\0\0\0\0\0",
        b"RIFF\0\0\0\0WAVEfmt ",
        b"x",
        b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
        b"ffconcat version 1.0\nfile /etc/passwd\n",
    ):
        with pytest.raises(SourceError, match="neither a picture nor a video"):
            media_kind(open_source(data))


def test_a_source_is_a_file_or_bytes() -> None:
    with pytest.raises(SourceError):
        Source("x")


@pytest.mark.parametrize("size", [0, 1, 2, 3, 4, 190_000, *range(196_600, 196_616), 393_216, 400_001])
def test_base64_of_any_length_in_pieces(size: int) -> None:
    """Pieces end where four characters may not, with white space and without padding."""
    data = bytes(i * 7 % 251 for i in range(size))
    whole = base64.b64encode(data)
    lines = base64.encodebytes(data)
    for text in (whole, whole.rstrip(b"="), lines, b" " + whole[: len(whole) // 2] + b"\r\n\t" + whole[len(whole) // 2 :]):
        assert sources._from_base64(text) == data


@pytest.mark.parametrize(
    "text",
    [b"QQ==" * 100_000, b"QUFB" * 65_535 + b"QQ==QUFB", b"QUFB" * 100_000 + b"Q", b"QUFB" * 70_000 + b"!UFB"],
    ids=["padded groups", "padding at the end of a piece", "a lone character", "no base64"],
)
def test_base64_that_is_wrong_in_one_piece_is_wrong(text: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  (binascii.Error, whose words are the library's)
        sources._from_base64(text)
    with pytest.raises(SourceError, match="not valid base64"):
        open_source("data:image/png;base64," + text.decode())
