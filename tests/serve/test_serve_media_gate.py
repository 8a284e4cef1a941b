"""The gate: the same pixels as without it, limits kept, and one sentence for what it does not take."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers_heic import make_heic
from helpers_media import encoded, make_clip, photo
from helpers_serve_media import LIMITS, PNG, SMALL, Loop, data_url, running_gate
from smolvlm.config import ProcessorConfig
from smolvlm.errors import ImageError, ParamsError, PromptError, SourceError, VideoError
from smolvlm.hub import resolve
from smolvlm.media import MediaOptions, load_image, split_image
from smolvlm.media.limits import STRANGERS
from smolvlm.media.sandbox.gate import MediaGate, MediaLimits, StoredFile
from smolvlm.processor import MediaInfo, PreparedMedia, Processor
from smolvlm.prompt.messages import ImagePart, VideoPart, parse_messages


@pytest.fixture(scope="module")
def gate() -> Iterator[tuple[Loop, MediaGate]]:
    with running_gate(LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_clip(tmp_path_factory.mktemp("clip") / "x.mp4", 100, options={"g": "12", "bf": "2", "preset": "veryfast"})


def same(ours: PreparedMedia, theirs: PreparedMedia) -> None:
    """Equal in everything but the label."""
    assert np.array_equal(ours.tiles, theirs.tiles)
    assert ours.tiles.dtype == theirs.tiles.dtype
    assert {**vars(ours.info), "label": ""} == {**vars(theirs.info), "label": ""}


@pytest.mark.parametrize("options", [{}, {"detail": "low"}, {"fps": 2.0, "max_frames": 5, "start": 0.5, "end": 3.0}], ids=str)
def test_equal_to_the_processor_bit_for_bit(examples: Path, options: dict[str, Any]) -> None:
    """Real photos, a real clip and nano's own files, as data URL, as bytes and as upload, with nano's own settings."""
    processor = Processor.from_folder(resolve("nano"))
    with running_gate(MediaLimits(workers=1), config=processor.config) as (loop, door):
        for name in ("astronaut.png", "rocket.jpg", "nano/scene.png", "bigbuckbunny.mp4", "nano/clip.mp4"):
            path = examples / name
            kind = "video" if name.endswith("mp4") else "image"
            part: Any = {"image": ImagePart, "video": VideoPart}[kind]
            expected = processor.prepare_media(
                [{"role": "user", "content": [{"type": kind, "path": str(path)}]}], options=MediaOptions(**options)
            )[0]
            for source in (data_url(path.read_bytes()), path.read_bytes(), StoredFile(path)):
                same(loop(door.open(part(source), MediaOptions(**options))), expected)


def test_a_photo_of_a_telephone(gate: tuple[Loop, MediaGate]) -> None:
    """HEIC: its library is loaded after the process has been confined."""
    loop, door = gate
    heic = make_heic(np.asarray(photo(128, 64)))
    same(loop(door.open(ImagePart(heic))), _in_process(heic))


def _in_process(data: bytes) -> PreparedMedia:
    picture = split_image(load_image(data), SMALL, MediaOptions())
    return PreparedMedia(MediaInfo("image", "", len(picture.tiles), picture.rows, picture.cols), picture.tiles)


def test_tiles_of_a_split_picture() -> None:
    """The 2.2B's settings cut a picture into rows and columns; those come back too."""
    config = ProcessorConfig(longest_edge=1536, tile_size=384, image_seq_len=81, video_longest_edge=384)
    with running_gate(MediaLimits(workers=1), config=config) as (loop, door):
        got = loop(door.open(ImagePart(PNG)))
    assert (got.info.tile_count, got.info.rows, got.info.cols) == (13, 3, 4)
    assert got.tiles.shape == (13, 384, 384, 3)


def test_a_whole_conversation(clip: Path) -> None:
    """Parts of the messages format go in, the processor's own prompt comes out; a part's options come first."""
    processor = Processor.from_folder(resolve("nano"))
    with running_gate(MediaLimits(workers=2), config=processor.config) as (loop, door):
        content = [
            {"type": "image_url", "image_url": {"url": data_url(PNG), "detail": "low"}},
            {"type": "text", "text": "Hm?"},
            {"type": "video_url", "video_url": {"url": data_url(clip.read_bytes(), "video/mp4")}, "fps": 3},
        ]
        messages = parse_messages([{"role": "user", "content": content}])
        media = [part for part in messages[0].parts if isinstance(part, ImagePart | VideoPart)]
        inputs = processor.build(messages, loop(door.open_all(media)))
    expected = processor(messages)
    assert inputs.input_ids == expected.input_ids
    assert np.array_equal(inputs.tiles, expected.tiles)


def test_kind(gate: tuple[Loop, MediaGate], clip: Path, tmp_path: Path) -> None:
    loop, door = gate
    picture, text = tmp_path / "a", tmp_path / "b"
    picture.write_bytes(PNG)
    text.write_bytes(b"hello, world" * 100)
    assert loop(door.kind(StoredFile(picture))) == "image"
    assert loop(door.kind(StoredFile(clip))) == "video"
    with pytest.raises(SourceError, match="notes.txt is neither a picture nor a video") as caught:
        loop(door.kind(StoredFile(text, "notes.txt")))
    assert str(tmp_path) not in str(caught.value), "a client never learns where uploads lie"


@pytest.mark.slow
def test_limits(gate: tuple[Loop, MediaGate], clip: Path, tmp_path: Path) -> None:
    loop, door = gate
    url = data_url(PNG)
    with pytest.raises(PromptError, match="holds 4 media, more than the limit of 3"):
        loop(door.open_all([ImagePart(url)] * 4))
    with pytest.raises(ParamsError, match="at most 64 frames"):
        loop(door.open(VideoPart(StoredFile(clip), {"max_frames": 65})))
    with pytest.raises(ImageError, match="2001 x 2000 pixels, more than the limit of 4000000"):
        loop(door.open(ImagePart(encoded(photo(2001, 2000), "PNG"))))
    small = MediaLimits(
        workers=1,
        source=dataclasses.replace(STRANGERS, max_stream_bytes=len(PNG) - 1, max_data_url_bytes=len(PNG) - 1),
        max_frames=3,
        max_video_s=3.9,
    )
    with running_gate(small) as (other, narrow):
        for source in (url, PNG):
            with pytest.raises(SourceError, match="limit of"):
                other(narrow.open(ImagePart(source)))
        large = tmp_path / "large"
        large.write_bytes(bytes(len(PNG)))
        with pytest.raises(SourceError, match="limit of"):
            other(narrow.open(ImagePart(StoredFile(large))))
    with running_gate(MediaLimits(workers=1, max_frames=3)) as (other, narrow):
        assert len(other(narrow.open(VideoPart(StoredFile(clip), {"fps": 25.0}))).tiles) == 3
    too_long = pytest.raises(VideoError, match=r"lasts 4 s, longer than the limit of 3\.9 s")
    with running_gate(MediaLimits(workers=1, max_video_s=3.9)) as (other, narrow), too_long:
        other(narrow.open(VideoPart(StoredFile(clip))))


@pytest.mark.parametrize("fields", [{"workers": 0}, {"workers": 1.5}, {"decode_s": 0}, {"decode_s": float("nan")}, {"max_media": True}])
def test_limits_that_make_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ParamsError, match=next(iter(fields))):
        MediaLimits(**fields)


def test_sources_that_no_request_can_hold(gate: tuple[Loop, MediaGate], tmp_path: Path) -> None:
    loop, door = gate
    for source in (Path("/etc/passwd"), 12, photo(4, 4), ["/etc/passwd"], None):
        with pytest.raises(SourceError, match="is no image that a request can hold"):
            loop(door.open(ImagePart(source)))
    with pytest.raises(SourceError, match="no longer stored here"):
        loop(door.open(ImagePart(StoredFile(tmp_path / "gone"))))
    empty = tmp_path / "empty"
    empty.touch()
    with pytest.raises(SourceError, match="is empty"):
        loop(door.open(ImagePart(StoredFile(empty))))


def test_one_bad_medium_ends_the_request(gate: tuple[Loop, MediaGate]) -> None:
    loop, door = gate
    with pytest.raises(ImageError, match="not a picture"):
        loop(door.open_all([ImagePart(data_url(PNG)), ImagePart(data_url(b"hello")), ImagePart(data_url(PNG))]))
    assert len(loop(door.open_all([ImagePart(data_url(PNG))] * 3))) == 3
