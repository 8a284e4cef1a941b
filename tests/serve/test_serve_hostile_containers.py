"""Bombs that keep just inside the limits of a server as it comes, and containers that promise billions of frames."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from PIL import Image

from helpers_media import encoded, make_clip, photo
from helpers_serve_media import PNG, Loop, running_gate
from smolvlm.errors import SmolVLMError
from smolvlm.media.sandbox.gate import MediaGate, MediaLimits, MediaUnavailableError
from smolvlm.prompt.messages import ImagePart, VideoPart

pytestmark = pytest.mark.slow  # faults and hostile files: the outer ring


@pytest.fixture(scope="module")
def gate() -> Iterator[tuple[Loop, MediaGate]]:
    """The limits of a server as it comes: 50 million pixels, 2 GB, 30 s of a processor."""
    with running_gate(MediaLimits(workers=1)) as found:
        yield found


def outcome(gate: tuple[Loop, MediaGate], part: Any, within_s: float = 10.0) -> str:
    """Harmless, or the sentence of the refusal; in time, without losing the worker, and the next picture is read."""
    loop, door = gate
    lost, began = door.workers_lost, time.monotonic()
    try:
        loop(door.open(part))
        told = "harmless"
    except MediaUnavailableError:
        raise
    except SmolVLMError as error:
        told = str(error)
        assert "cannot be decoded; save it again" not in told, "an error that media/ did not foresee"
        assert "crashes" not in told
    assert time.monotonic() - began < within_s
    assert door.workers_lost == lost, told
    assert len(loop(door.open(ImagePart(PNG))).tiles)
    return told


def _side(side: int, mode: str = "RGB") -> Image.Image:
    return Image.new(mode, (side, side))


def _png_rows(side: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(side * (4 * side + 1)), 1)) + chunk(b"IEND", b"")


def _animated(format: str) -> bytes:
    frames = [_side(2000, "L").convert("RGB") for _ in range(12)]
    frames[1::2] = [Image.new("RGB", (2000, 2000), (n, 0, 0)) for n in range(6)]
    buffer = io.BytesIO()
    frames[0].save(buffer, format, save_all=True, append_images=frames[1:], duration=10, loop=0)
    return buffer.getvalue()


# Bytes on the wire, and what they become: some 0.2 to 1 MB, 50 million pixels.
INSIDE: dict[str, Callable[[], bytes]] = {
    "png_rgba": lambda: _png_rows(7000),
    "webp_lossless": lambda: encoded(_side(7000), "WEBP", lossless=True, quality=0, method=0),
    "gif": lambda: encoded(_side(7000, "L"), "GIF"),
    "jpeg_progressive": lambda: encoded(_side(7000, "L"), "JPEG", progressive=True),
    "tiff_deflate": lambda: encoded(_side(7000), "TIFF", compression="tiff_adobe_deflate"),
    "webp_animated": lambda: _animated("WEBP"),
    "png_animated": lambda: _animated("PNG"),
}


@pytest.mark.parametrize("name", INSIDE)
def test_bombs_inside_the_limits_are_bearable(gate: tuple[Loop, MediaGate], name: str) -> None:
    data = INSIDE[name]()
    told = outcome(gate, ImagePart(data))
    print(f"{name}: {len(data)} bytes -> {told}")
    assert len(data) < 3_000_000
    assert told == "harmless" or "takes more than" in told


@pytest.fixture(scope="module")
def containers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Clips in the containers that carry their own counts."""
    folder = tmp_path_factory.mktemp("containers")
    fragments = {"movflags": "frag_keyframe+empty_moov"}
    return {
        "avi": make_clip(folder / "x.avi", 12, codec="mpeg4", size=(96, 64)).read_bytes(),
        "mkv": make_clip(folder / "x.mkv", 12, size=(96, 64)).read_bytes(),
        "mp4": make_clip(folder / "x.mp4", 12, size=(96, 64), container_options=fragments).read_bytes(),
    }


def _set(data: bytes, marker: bytes, skip: int, value: bytes) -> bytes:
    at = data.index(marker) + len(marker) + skip
    return data[:at] + value + data[at + len(value) :]


BILLION, MOST = struct.pack("<I", 10**9), b"\xff" * 4
JPEG = encoded(photo(16, 16), "JPEG")
CONTAINERS: dict[str, Callable[[dict[str, bytes]], bytes] | bytes] = {
    "avi_a_billion_frames": lambda c: _set(_set(c["avi"], b"avih", 4 + 16, BILLION), b"strh", 4 + 32, BILLION),
    "avi_a_billion_frames_a_second": lambda c: _set(c["avi"], b"strh", 4 + 20, struct.pack("<II", 1, 10**9)),
    "avi_index_of_4_gigabytes": lambda c: _set(c["avi"], b"idx1", 0, MOST),
    "avi_frames_of_4_billion_pixels": lambda c: _set(c["avi"], b"strf", 4 + 4, struct.pack("<II", 65_535, 65_535)),
    "mkv_endless": lambda c: _set(c["mkv"], b"\x44\x89\x88", 0, struct.pack(">d", 1e300)),
    "mkv_of_no_number": lambda c: _set(c["mkv"], b"\x44\x89\x88", 0, struct.pack(">d", float("nan"))),
    "mkv_of_negative_length": lambda c: _set(c["mkv"], b"\x44\x89\x88", 0, struct.pack(">d", -1e18)),
    "mkv_nested_a_thousand_deep": lambda c: c["mkv"][:64] + b"\x18\x53\x80\x67\x01\xff\xff\xff\xff\xff\xff\xff" * 1000,
    "mp4_fragment_of_a_billion_samples": lambda c: _set(c["mp4"], b"trun", 4, struct.pack(">I", 10**9)),
    "mp4_fragments_in_each_other": lambda c: c["mp4"] + b"\0\0\xff\xffmoof" * 5000,
    "y4m_of_4_billion_pixels": b"YUV4MPEG2 W65535 H65535 F1000000000:1 C420jpeg\nFRAME\n" + bytes(1000),
    "y4m_of_a_billion_frames_a_second": b"YUV4MPEG2 W16 H16 F1000000000:1 C420jpeg\n" + (b"FRAME\n" + bytes(384)) * 5000,
    "jpegs_without_end": JPEG * 20_000,
    "gif_frames_without_end": encoded(photo(16, 16), "GIF")[:-1] + b",\0\0\0\0\x01\0\x01\0\0\x02\x02\x44\x01\0" * 500_000,
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_containers_that_promise_too_much(gate: tuple[Loop, MediaGate], containers: dict[str, bytes], name: str) -> None:
    made = CONTAINERS[name]
    told = outcome(gate, VideoPart(made if isinstance(made, bytes) else made(containers)))
    print(f"{name}: {told}")
    assert told == "harmless" or told.endswith(".")
