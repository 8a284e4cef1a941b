"""Every form a picture comes in gives the same pixels, upright; what is not a picture gives one clear sentence."""

from __future__ import annotations

import base64
import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers_media import OFFICIAL, encoded, photo, reference_images
from smolvlm.errors import ImageError, MissingExtraError, SourceError
from smolvlm.media import Limits, MediaOptions, SourcePolicy, load_image, normalize, split_image


def _same(image: Image.Image, expected: Image.Image) -> bool:
    return image.mode == "RGB" and np.array_equal(np.asarray(image), np.asarray(expected.convert("RGB")))


def test_every_way_in_gives_the_same_picture(tmp_path: Path) -> None:
    image = photo(61, 40)
    data = encoded(image, "PNG")
    path = tmp_path / "photo: 12 %41.png"
    path.write_bytes(data)
    url = "data:image/png;base64," + base64.b64encode(data).decode()
    percent = "data:image/png," + "".join(f"%{b:02x}" for b in data)
    with path.open("rb") as stream:
        sources = [
            str(path),
            path,
            data,
            bytearray(data),
            memoryview(data),
            io.BytesIO(data),
            stream,
            url,
            percent,
            image,
            np.asarray(image),
            url.replace("base64,", "base64,\n"),
        ]
        for source in sources:
            assert _same(load_image(source), image), type(source)


@pytest.mark.parametrize("name", ["astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg"])
def test_example_photos_equal_the_reference_loader(examples: Path, name: str) -> None:
    from oracle import transformers

    assert _same(load_image(examples / name), transformers.image_utils.load_image(str(examples / name)))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_all_eight_orientations(orientation: int, tmp_path: Path) -> None:
    """Against Pillow's own transposition, and the marked corner by hand."""
    upright = photo(48, 32)
    upright.paste((255, 0, 0), (0, 0, 16, 16))
    # The stored picture is the inverse turn of the upright one.
    inverse = {5: 5, 6: 8, 7: 7, 8: 6}.get(orientation, orientation)
    exif = Image.Exif()
    exif[0x0112] = inverse
    probe = upright.copy()
    probe.getexif()[0x0112] = inverse
    stored = ImageOps.exif_transpose(probe)
    exif[0x0112] = orientation
    path = tmp_path / "photo.png"
    stored.save(path, exif=exif)
    got = load_image(path)
    assert got.size == (48, 32)
    assert got.getpixel((4, 4)) == (255, 0, 0)
    assert _same(got, upright)
    assert _same(load_image(Image.open(path)), upright)


def test_broken_exif_leaves_the_photo_alone() -> None:
    image = photo(20, 10)
    data = encoded(image, "PNG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff")
    assert _same(load_image(data), image)


@pytest.mark.parametrize("mode", ["P", "PA", "L", "LA", "RGBA", "1", "CMYK", "YCbCr", "HSV", "RGBX"])
def test_modes_of_objects_equal_the_reference_processor(mode: str) -> None:
    """A decoded picture, as the reference's processor takes it: transparency lies over white."""
    image = photo(40, 30).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((40, 30)))
    image = image.convert(mode) if mode in ("LA", "PA", "RGBA") else image.convert("RGB").convert(mode)
    assert image.mode == mode
    expected = reference_images(OFFICIAL, False)(image, return_tensors="np")["pixel_values"][0]
    tiled = split_image(load_image(image), OFFICIAL, MediaOptions(image_splitting=False))
    assert np.abs(normalize(tiled.tiles, OFFICIAL) - expected).max() <= 1e-6


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA", "L", "1", "CMYK"])
def test_modes_of_files_equal_the_reference_loader(mode: str, tmp_path: Path) -> None:
    """A file, as `transformers.image_utils.load_image` reads it: `convert("RGB")`, which drops alpha."""
    from oracle import transformers

    image = photo(40, 30).convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize((40, 30)))
    path = tmp_path / ("x.tif" if mode == "CMYK" else "x.png")
    if mode == "P":
        palette = image.convert("RGB").quantize(16)
        palette.save(path, transparency=bytes([0, 100, 255] * 5))
    else:
        (image if "A" in mode else image.convert("RGB")).convert(mode).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours = load_image(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert _same(ours, transformers.image_utils.load_image(str(path)))


def test_adobe_cmyk_jpeg() -> None:
    data = encoded(photo(32, 32).convert("CMYK"), "JPEG", quality=95)
    assert _same(load_image(data), Image.open(io.BytesIO(data)).convert("RGB"))


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    ramp = np.linspace(0, 65535, 256 * 4).reshape(4, 256).astype(np.uint16)
    expected = np.rint(ramp / 257.0).astype(np.uint8)
    for name, values in (("x.png", ramp), ("x.tif", ramp), ("big.tif", ramp.astype(">u2"))):
        Image.fromarray(ramp).save(tmp_path / name) if values is ramp else _big_endian_tiff(tmp_path / name, ramp)
        got = np.asarray(load_image(tmp_path / name))
        assert np.array_equal(got[:, :, 0], expected), name
        assert (got[:, :, 0] == got[:, :, 2]).all()
    assert np.array_equal(np.asarray(load_image(Image.fromarray(ramp.astype(np.int32))))[:, :, 1], expected)
    assert np.array_equal(np.asarray(load_image(ramp))[:, :, 1], expected)


def _big_endian_tiff(path: Path, values: np.ndarray) -> None:
    """A minimal big-endian TIFF of one 16-bit grey strip, by the specification (TIFF 6.0, section 2)."""
    height, width = values.shape
    tags = [
        (256, 3, width),
        (257, 3, height),
        (258, 3, 16),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (277, 3, 1),
        (278, 3, height),
        (279, 4, values.size * 2),
    ]
    body = values.astype(">u2").tobytes()
    ifd = struct.pack(">H", len(tags))
    for tag, kind, value in tags:
        ifd += struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
    path.write_bytes(b"MM\0*" + struct.pack(">I", 8 + len(body)) + body + ifd + b"\0\0\0\0")


def test_float_and_32_bit_pictures() -> None:
    ramp = np.linspace(0, 1, 11, dtype=np.float32).reshape(1, 11)
    by_hand = np.array([0, 26, 51, 76, 102, 128, 153, 178, 204, 230, 255])
    for values in (ramp, ramp * 255, ramp * 9000 - 20):  # 0..1, 0..255, and a measurement laid over the whole range
        got = np.asarray(load_image(Image.fromarray(values)))[0, :, 0].astype(int)
        assert np.abs(got - by_hand).max() <= 1  # halves (25.5) round by float32's last bit
    deep = Image.fromarray((ramp * 1e6).astype(np.int32))
    assert np.abs(np.asarray(load_image(deep))[0, :, 0].astype(int) - by_hand).max() <= 1
    with pytest.raises(ImageError, match="NaN or infinite"):
        load_image(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


def test_first_frame_of_an_animation() -> None:
    frames = [photo(24, 16, seed=s) for s in range(3)]
    for format, options in (("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {"save_all": True})):
        data = encoded(frames[0], format, **{"save_all": True, "append_images": frames[1:], **options})
        got = np.asarray(load_image(data)).astype(int)
        assert np.abs(got - np.asarray(frames[0])).mean() < (30 if format == "GIF" else 1e-9), format


@pytest.mark.parametrize("format", ["BMP", "TIFF", "PPM", "ICO", "JPEG2000", "WEBP", "AVIF"])
def test_other_formats(format: str) -> None:
    image = Image.merge("RGB", [Image.linear_gradient("L").resize((48, 48))] * 3)
    options = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "ICO": {"sizes": [(48, 48)]}}.get(format, {})
    got = np.asarray(load_image(encoded(image, format, **options))).astype(int)
    assert np.abs(got - np.asarray(image)).mean() < (4 if format == "AVIF" else 1e-9)


@pytest.mark.parametrize("quarter_turns", [0, 1, 2, 3])
def test_heic_upright(quarter_turns: int) -> None:
    """Smooth colours survive HEVC within a few levels; the container's own turn is applied once."""
    pytest.importorskip("pi_heif")
    from helpers_heic import make_heic

    ramp = np.asarray(Image.linear_gradient("L").resize((96, 64)))
    pixels = np.stack([ramp, ramp[::-1], np.full_like(ramp, 90)], axis=2)
    pixels[:, :16, 2] = 200
    got = np.asarray(load_image(make_heic(pixels, quarter_turns))).astype(int)
    expected = np.rot90(pixels, quarter_turns)
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < 4


def test_heic_bomb_is_refused() -> None:
    pytest.importorskip("pi_heif")
    from helpers_heic import make_heic

    with pytest.raises(ImageError, match="limit of 100000000|damaged"):
        load_image(make_heic(np.zeros((64, 64, 3), np.uint8), claimed=(30000, 30000)))


def test_heic_without_the_extra_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pi_heif", None)
    with pytest.raises(MissingExtraError, match=r"smolvlm\[heic\]"):
        load_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100)


def test_heic_that_is_damaged() -> None:
    pytest.importorskip("pi_heif")
    with pytest.raises(ImageError, match="HEIC picture is damaged"):
        load_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 100)


def test_pillow_globals_are_untouched() -> None:
    before = (Image.MAX_IMAGE_PIXELS, __import__("PIL.ImageFile").ImageFile.LOAD_TRUNCATED_IMAGES)
    filters = list(warnings.filters)
    load_image(photo(8, 8))
    load_image(encoded(photo(8, 8), "PNG"))
    assert before == (Image.MAX_IMAGE_PIXELS, __import__("PIL.ImageFile").ImageFile.LOAD_TRUNCATED_IMAGES)
    assert list(warnings.filters) == filters


def _png_bomb(side: int) -> bytes:
    """A valid PNG header that claims side x side pixels, with a short stream of zeros behind it."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(10**6))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [50_000, 12_000])
def test_bomb_is_refused_from_its_header(side: int, tmp_path: Path) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(_png_bomb(side))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow's own warning about large pictures must not reach the user
        with pytest.raises(ImageError, match=r"bomb\.png: .*limit of 100000000"):
            load_image(path)


def test_limit_is_the_callers() -> None:
    data = encoded(photo(40, 30), "PNG")
    policy = SourcePolicy(limits=Limits(max_image_pixels=1199))
    for source in (data, photo(40, 30), np.asarray(photo(40, 30))):
        with pytest.raises(ImageError, match="limit of 1199"):
            load_image(source, policy)
    assert load_image(data, SourcePolicy(limits=Limits(max_image_pixels=1200))).size == (40, 30)


def test_bad_files(tmp_path: Path) -> None:
    jpeg = encoded(photo(200, 150), "JPEG")
    png = encoded(photo(200, 150), "PNG")
    cases = {
        "text.jpg": (b"this is a text file\n" * 20, "not a picture"),
        "cut.jpg": (jpeg[: len(jpeg) // 2], "damaged or cut off"),
        "cut.png": (png[: len(png) // 2], "damaged or cut off"),
        "header.png": (png[:20], "not a picture|damaged"),
        "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n", "not a picture"),
        "clip.mp4": (b"\0\0\0\x18ftypisom\0\0\0\0isomiso2" + b"\0" * 64, "not a picture"),
    }
    for name, (data, message) in cases.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(ImageError, match=message) as caught:
            load_image(path)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    (tmp_path / "empty.png").write_bytes(b"")
    for name, message in (("empty.png", "is empty"), ("missing.png", "no such file"), (".", "is a folder")):
        with pytest.raises(SourceError, match=message):
            load_image(tmp_path / name)


def test_an_object_that_is_nothing() -> None:
    for thing in (3, None, [1, 2], {"url": "x"}):
        with pytest.raises(SourceError, match="is not a media source"):
            load_image(thing)  # type: ignore[arg-type]
