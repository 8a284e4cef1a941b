"""The generated set of pictures: file bytes, and the pixels that were drawn into them.

formats x modes x depth x orientation x color profile x transparency x missing ends x several pictures in one file x size.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

from helpers_heic import make_heic
from helpers_pictures import (
    ADOBE_RGB,
    DISPLAY_P3,
    SRGB,
    Pixels,
    drawn,
    encoded,
    icc_profile,
    jpeg_page,
    make_tiff,
    rgb_page,
    sensor_page,
    to_srgb_by_hand,
    turned,
)
from smolvlm.media.apng import chunk
from smolvlm.media.tone_map import ColorTags, tone_map

ANIMATION = "an animation: only its first frame was read"


@dataclass
class Case:
    """`expected` is compared with a mean difference of at most `within` levels; `warning` must come, None: none may.

    libav: whether an independent decoder reads the file as it is (upright, opaque, 8 bits) and is compared too.
    """

    name: str
    data: bytes
    expected: Pixels
    within: float = 0.0
    warning: str | None = None
    options: dict[str, Any] = field(default_factory=dict)
    libav: bool = False


def all_cases() -> list[Case]:
    """Every case; names are distinct."""
    made = [case for part in (_modes, _lossy, _oriented, _transparent, _cut_off, _several, _raw, _colored, _odd) for case in part()]
    assert len({case.name for case in made}) == len(made)
    return made


def _rgb(gray: Pixels) -> Pixels:
    return np.repeat(gray[:, :, None], 3, axis=2)


def _modes() -> Iterator[Case]:
    """Formats without loss, in every mode that they know."""
    pixels = drawn()
    image = Image.fromarray(pixels)
    gray = pixels[:, :, 1]
    bits = gray > 120
    few = pixels // 64 * 64
    palette = Image.fromarray(few).quantize(64, method=Image.Quantize.FASTOCTREE)
    indexed = np.asarray(palette.convert("RGB"))
    two = Image.fromarray(gray).point(lambda v: 255 if v > 120 else 0).convert("1")
    modes = {
        "RGB": (image, pixels),
        "L": (Image.fromarray(gray), _rgb(gray)),
        "1": (two, _rgb(bits * np.uint8(255))),
        "P": (palette, indexed),
    }
    plain = {
        "PNG": (("RGB", "L", "1", "P"), {}),
        "BMP": (("RGB", "L", "1", "P"), {}),
        "PPM": (("RGB", "L", "1"), {}),
        "TIFF": (("RGB", "L", "1", "P"), {}),
        "GIF": (("L", "P"), {}),
        "ICO": (("RGB",), {"sizes": [(48, 32)]}),
        "JPEG2000": (("RGB", "L"), {}),
        "WEBP": (("RGB",), {"lossless": True}),
    }
    for format, (names, options) in plain.items():
        for mode in names:
            source, expected = modes[mode]
            yield Case(f"{format} {mode}", encoded(source, format, **options), expected, libav=mode != "1" and format != "ICO")
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"):
        yield Case(f"TIFF {compression}", encoded(image, "TIFF", compression=compression), pixels, libav=True)
    yield Case("TIFF big endian", make_tiff([rgb_page(pixels)], ">"), pixels, libav=True)
    yield Case("TIFF BigTIFF", encoded(image, "TIFF", big_tiff=True), pixels)
    deep = (np.linspace(0, 65535, 48 * 32).reshape(32, 48)).astype(np.uint16)
    scaled = _rgb(((deep.astype(int) * 255 + 32767) // 65535).astype(np.uint8))
    for format in ("PNG", "TIFF", "PPM"):
        yield Case(f"{format} I;16", encoded(Image.fromarray(deep), format), scaled)
    yield Case("TIFF float", encoded(Image.fromarray(gray.astype(np.float32)), "TIFF"), _rgb(gray))
    yield Case("PNG 16 bits a channel", _libav_png(np.repeat(pixels.astype(np.uint16)[..., None] * 257, 1, axis=3)[..., 0]), pixels)
    yield Case("BMP upside down", _top_down(encoded(image, "BMP")), pixels, libav=True)


def _lossy() -> Iterator[Case]:
    pixels = drawn(96, 64)
    image = Image.fromarray(pixels)
    for name, options in {
        "4:4:4": {"subsampling": 0},
        "4:2:2": {"subsampling": 1},
        "4:2:0": {"subsampling": 2},
        "progressive": {"progressive": True},
        "restarts": {"restart_marker_blocks": 2},
    }.items():
        yield Case(f"JPEG {name}", encoded(image, "JPEG", quality=95, **options), pixels, 4, libav=True)
    gray = pixels[:, :, 1]
    yield Case("JPEG gray", encoded(Image.fromarray(gray), "JPEG", quality=95), _rgb(gray), 2, libav=True)
    yield Case("JPEG CMYK, inverted as Adobe writes it", encoded(image.convert("CMYK"), "JPEG", quality=95), pixels, 3)
    yield Case("TIFF CMYK", encoded(image.convert("CMYK"), "TIFF"), pixels, 1)
    yield Case("TIFF with JPEG inside", encoded(image, "TIFF", compression="jpeg", quality=95), pixels, 4)
    yield Case("WEBP with loss", encoded(image, "WEBP", quality=95), pixels, 5)
    yield Case("AVIF", encoded(image, "AVIF", quality=95, subsampling="4:4:4"), pixels, 4)
    yield Case("HEIC", make_heic(pixels), pixels, 5)


def _oriented() -> Iterator[Case]:
    """All eight orientations in every format that has a place for them."""
    pixels = drawn(64, 48)
    image = Image.fromarray(pixels)
    for orientation in range(1, 9):
        exif = Image.Exif()
        exif[0x0112] = orientation
        expected = turned(pixels, orientation)
        for format, options in (
            ("JPEG", {"quality": 95, "subsampling": 0}),
            ("PNG", {}),
            ("WEBP", {"lossless": True}),
            ("AVIF", {"quality": 100, "subsampling": "4:4:4"}),
            ("TIFF", {}),
        ):
            within = {"JPEG": 3, "AVIF": 3}.get(format, 0)
            # Pillow keeps the orientation of TIFF among its tags, not in EXIF.
            where = {"tiffinfo": {274: orientation}} if format == "TIFF" else {"exif": exif}
            data = encoded(image, format, **where, **options)
            yield Case(f"{format} orientation {orientation}", data, expected, within)
    for turns in range(4):
        yield Case(f"HEIC irot {turns}", make_heic(pixels, turns), np.rot90(pixels, turns), 5)


def _transparent() -> Iterator[Case]:
    pixels = drawn()
    alpha = np.full((32, 48), 255, np.uint8)
    alpha[8:24] = 0
    half = alpha.copy()
    half[24:] = 102
    hidden = "is transparent and its hidden colors are shown"
    for format, options in (("PNG", {}), ("WEBP", {"lossless": True, "exact": True}), ("TIFF", {})):
        data = encoded(Image.fromarray(np.dstack([pixels, half])), format, **options)
        yield Case(f"{format} RGBA as the reference", data, pixels, warning=hidden)
        for name, color in {"white": (255, 255, 255), "black": (0, 0, 0), "#ff8000": (255, 128, 0)}.items():
            share = half[..., None] / 255.0
            over = (pixels * share + np.array(color) * (1 - share)).round().astype(np.uint8)
            yield Case(f"{format} RGBA over {name}", data, over, 0.5, options={"background": name})
    gray = pixels[:, :, 1]
    levels = Image.merge("LA", [Image.fromarray(gray), Image.fromarray(alpha)])
    yield Case("PNG LA", encoded(levels, "PNG"), _rgb(gray), warning=hidden)
    opaque = Image.fromarray(np.dstack([pixels, np.full_like(alpha, 255)]))
    yield Case("PNG RGBA that hides nothing", encoded(opaque, "PNG"), pixels)
    logo = np.zeros((32, 48, 4), np.uint8)
    logo[8:24, 8:40, 3] = 255
    yield Case("PNG black on black", encoded(Image.fromarray(logo), "PNG"), logo[..., :3], warning="nothing of it can be told apart")
    keyed = Image.fromarray(gray)
    yield Case("PNG L with one transparent gray", encoded(keyed, "PNG", transparency=int(gray[20, 20])), _rgb(gray), warning=hidden)
    indices = Image.fromarray((gray // 64).astype(np.uint8), "P")
    indices.putpalette([0, 0, 0, 90, 90, 90, 180, 180, 180, 250, 250, 250])
    expected = np.array([0, 90, 180, 250], np.uint8)[gray // 64]
    yield Case("PNG P with a transparent entry", encoded(indices, "PNG", transparency=1), _rgb(expected), warning=hidden)


def _cut_off() -> Iterator[Case]:
    pixels = drawn(96, 64)
    image = Image.fromarray(pixels)
    jpeg = encoded(image, "JPEG", quality=95)
    progressive = encoded(image, "JPEG", quality=95, progressive=True)
    png, bmp = encoded(image, "PNG"), encoded(image, "BMP")
    cut = "the file is cut off"
    yield Case("JPEG without its last two bytes", jpeg[:-2], pixels, 4, cut)
    yield Case("JPEG without its last forty bytes", jpeg[:-40], pixels, 8, cut)
    yield Case("progressive JPEG without its last two bytes", progressive[:-2], pixels, 4, cut)
    yield Case(
        "gray JPEG without its last two bytes",
        encoded(image.convert("L"), "JPEG", quality=95)[:-2],
        _rgb(np.asarray(image.convert("L"))),
        3,
        cut,
    )
    flat = np.full((48, 64, 3), 128, np.uint8)
    yield Case("flat gray JPEG without its last two bytes", encoded(Image.fromarray(flat), "JPEG")[:-2], flat, 1, cut)
    noisy = np.random.default_rng(3).integers(0, 256, (64, 96, 3)).astype(np.uint8)
    rows = 2
    left = noisy.copy()
    left[-rows:] = 0
    short = encoded(Image.fromarray(noisy), "PNG", compress_level=0)
    yield Case("PNG without its last two rows", short[: -(rows * 289 + 16)], left, 2, cut)
    yield Case("PNG without its end", png[:-12], pixels)
    yield Case("BMP without its last bytes", bmp[:-30], pixels, 1, cut)
    yield Case("JPEG with garbage behind", jpeg + b"\0garbage" * 99, pixels, 4)


def _several() -> Iterator[Case]:
    first, second = drawn(), drawn()[::-1].copy()
    one, two = Image.fromarray(first), Image.fromarray(second)
    more: dict[str, Any] = {"save_all": True, "append_images": [two], "duration": [80, 120]}
    yield Case("animated WEBP", encoded(one, "WEBP", lossless=True, **more), first, warning=ANIMATION)
    yield Case("animated PNG", encoded(one, "PNG", **more), first, warning=ANIMATION)
    yield Case("animated AVIF", encoded(one, "AVIF", quality=95, subsampling="4:4:4", **more), first, 4, ANIMATION)
    palette = one.quantize(32)
    yield Case(
        "animated GIF",
        encoded(palette, "GIF", save_all=True, append_images=[two.quantize(32)], duration=90),
        np.asarray(palette.convert("RGB")),
        0,
        ANIMATION,
    )
    yield Case("GIF of one frame", encoded(palette, "GIF"), np.asarray(palette.convert("RGB")))
    pages = encoded(one, "TIFF", save_all=True, append_images=[two, two])
    yield Case("TIFF of three pages", pages, first, warning="only the first of its 3 pages")
    large = drawn(120, 90)
    preview = rgb_page(first, 1)
    found = "its first page is a small preview; the full picture of 120 x 90"
    yield Case("TIFF, preview first", make_tiff([preview, rgb_page(large, 0)]), large, warning=found)
    yield Case("TIFF, preview first, big endian", make_tiff([rgb_page(first, 1), rgb_page(large, 0)], ">"), large, warning=found)
    yield Case("TIFF, full picture as a sub-page", make_tiff([rgb_page(first, 1, subs=[rgb_page(large, 0)])]), large, warning=found)
    yield Case("TIFF pyramid", make_tiff([rgb_page(large, 0, subs=[rgb_page(first, 1)])]), large)
    turned_page = rgb_page(large, 0, orientation=6)
    yield Case("TIFF, preview first, turned", make_tiff([rgb_page(first, 1), turned_page]), turned(large, 6), warning=found)
    mpo = encoded(one, "MPO", save_all=True, append_images=[two], quality=95, subsampling=0)
    yield Case("MPO", mpo, first, 3)
    sizes = encoded(Image.fromarray(drawn(64, 64)), "ICO", sizes=[(16, 16), (64, 64)])
    yield Case("ICO of two sizes", sizes, drawn(64, 64))


def _raw() -> Iterator[Case]:
    """Camera files as DNG, NEF, CR2 and ARW are laid out: thumbnail, sensor, developed JPEGs."""
    full, middle, thumb = drawn(160, 120), drawn(80, 60), drawn(40, 30)

    def jpeg(pixels: Pixels) -> bytes:
        return encoded(Image.fromarray(pixels), "JPEG", quality=95, subsampling=0)

    def sensor() -> Any:
        return sensor_page(168, 128)

    said = "a camera's raw photo: the developed picture of 160 x 120 pixels"
    dng = {50706: (1, [1, 4, 0, 0])}
    yield Case(
        "DNG",
        make_tiff([rgb_page(thumb, 1, subs=[sensor(), jpeg_page(jpeg(middle), 80, 60), jpeg_page(jpeg(full), 160, 120)])], extra=dng),
        full,
        3,
        said,
    )
    nef_preview = jpeg_page(jpeg(full), 160, 120)
    nef_preview.jpeg = True
    yield Case(
        "NEF",
        make_tiff([rgb_page(thumb, 1, orientation=8, subs=[nef_preview, sensor()])], ">"),
        turned(full, 8),
        3,
        said.replace("160 x 120", "160 x 120"),
    )
    cr2 = make_tiff([jpeg_page(jpeg(full), 160, 120, 0), jpeg_page(jpeg(thumb), 40, 30), sensor()])
    yield Case("CR2", cr2, full, 3, said)
    arw_preview = rgb_page(thumb, 1, orientation=3)
    arw_preview.data, arw_preview.jpeg = jpeg(full), True
    yield Case("ARW", make_tiff([arw_preview, jpeg_page(jpeg(thumb), 40, 30), sensor()]), turned(full, 3), 3, said)
    yield Case("RW2", make_tiff([jpeg_page(jpeg(full), 160, 120)], magic=b"IIU\0"), full, 3, said)
    yield Case("ORF", make_tiff([jpeg_page(jpeg(thumb), 40, 30), jpeg_page(jpeg(full), 160, 120)], magic=b"IIRO"), full, 3, said)
    yield Case("RAF", b"FUJIFILMCCD-RAW 0201" + bytes(130) + jpeg(full) + bytes(500), full, 3, said)
    box = struct.pack(">I", 24) + b"ftypcrx \0\0\0\1crx isom"
    yield Case("CR3", box + bytes(64) + jpeg(middle) + bytes(40) + jpeg(full) + bytes(900), full, 3, said)
    yield Case(
        "DNG, developed as a plain page", make_tiff([rgb_page(thumb, 1, subs=[sensor(), rgb_page(full, 1)])], extra=dng), full, 0, said
    )


def _colored() -> Iterator[Case]:
    pixels = drawn()
    pixels = np.clip(pixels, 60, 200).astype(np.uint8)
    image = Image.fromarray(pixels)
    for name, colorants, gamma in (("Display P3", DISPLAY_P3, 2.2), ("Adobe RGB (1998)", ADOBE_RGB, 2.2)):
        profile = icc_profile(colorants, gamma, name)
        data = encoded(image, "PNG", icc_profile=profile)
        said = f"its color profile ({name}) was not applied"
        yield Case(f"PNG in {name} as the reference", data, pixels, warning=said)
        yield Case(f"PNG in {name}, converted", data, to_srgb_by_hand(pixels, colorants, gamma), 1.5, options={"tone_map": "auto"})
        jpeg = encoded(image, "JPEG", quality=98, subsampling=0, icc_profile=profile)
        yield Case(f"JPEG in {name}, converted", jpeg, to_srgb_by_hand(pixels, colorants, gamma), 4, options={"tone_map": "auto"})
    p3 = to_srgb_by_hand(pixels, DISPLAY_P3, 2.2)  # sRGB's curve is within two levels of 2.2 here
    tagged = _with_cicp(encoded(image, "PNG"), 12, 13)
    yield Case("PNG in P3 by its cICP", tagged, pixels, warning="its colors are wide-gamut (P3)")
    yield Case("PNG in P3 by its cICP, converted", tagged, p3, 2.5, options={"tone_map": "auto"})
    avif = encoded(image, "AVIF", quality=97, subsampling="4:4:4")
    for name, primaries, transfer in (("PQ", 9, 16), ("HLG", 9, 18)):
        lit = tone_map(pixels, ColorTags(primaries=primaries, transfer=transfer))  # held against hand-worked light elsewhere
        tagged = _with_cicp(encoded(image, "PNG"), primaries, transfer)
        yield Case(f"PNG in {name}", tagged, pixels, warning=f"its colors are HDR ({name})")
        yield Case(f"PNG in {name}, converted", tagged, lit, options={"tone_map": "auto"})
        at = avif.index(b"colrnclx") + 8
        tagged = avif[:at] + struct.pack(">HH", primaries, transfer) + avif[at + 4 :]
        yield Case(f"AVIF in {name}", tagged, pixels, 4, warning=f"its colors are HDR ({name})")
        yield Case(f"AVIF in {name}, converted", tagged, lit, 8, options={"tone_map": "auto"})
    yield Case("PNG in sRGB by its profile", encoded(image, "PNG", icc_profile=icc_profile(SRGB, 2.2, "of another name")), pixels)
    yield Case("PNG with a broken profile", encoded(image, "PNG", icc_profile=b"no profile" * 20), pixels)


def _odd() -> Iterator[Case]:
    for width, height in ((1, 1), (1, 300), (300, 1), (511, 2), (1025, 3)):
        pixels = drawn(width, height)
        yield Case(f"PNG {width} x {height}", encoded(Image.fromarray(pixels), "PNG"), pixels, libav=True)
        jpeg = encoded(Image.fromarray(pixels), "JPEG", quality=98, subsampling=0)
        yield Case(f"JPEG {width} x {height}", jpeg, pixels, 4, libav=True)
    large = drawn(400, 304)
    for step in (2, 4):
        most = -(-400 // step) * -(-304 // step)
        jpeg = encoded(Image.fromarray(large), "JPEG", quality=95, subsampling=0)
        small = large.reshape(304 // step, step, 400 // step, step, 3).mean((1, 3)).round().astype(np.uint8)
        yield Case(
            f"JPEG at 1/{step} of its size", jpeg, small, 4, f"decoded at 1/{step} of its size", {"max_pixels": max(most, 400 * 304 // 10)}
        )
    yield Case(
        "JPEG 2000 at 1/2 of its size",
        encoded(Image.fromarray(large), "JPEG2000"),
        large.reshape(152, 2, 200, 2, 3).mean((1, 3)).round().astype(np.uint8),
        4,
        "decoded at 1/2 of its size",
        {"max_pixels": 152 * 200},
    )


def _with_cicp(png: bytes, primaries: int, transfer: int) -> bytes:
    return png[:33] + chunk(b"cICP", bytes([primaries, transfer, 0, 1])) + png[33:]


def _top_down(bmp: bytes) -> bytes:
    """The same bitmap with its rows in reading order, which a negative height says."""
    start = struct.unpack("<I", bmp[10:14])[0]
    width, height = struct.unpack("<ii", bmp[18:26])
    row = (width * 3 + 3) // 4 * 4
    rows = [bmp[start + i * row : start + (i + 1) * row] for i in range(height)]
    return bmp[:22] + struct.pack("<i", -height) + bmp[26:start] + b"".join(reversed(rows))


def _libav_png(values: Pixels) -> bytes:
    """A PNG of 16 bits a channel, which Pillow cannot write."""
    import av

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="image2pipe") as out:
        stream = out.add_stream("png", rate=1)
        stream.height, stream.width = values.shape[:2]
        stream.pix_fmt = "rgb48be"
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), "rgb48le").reformat(format="rgb48be")
        out.mux([*stream.encode(frame), *stream.encode(None)])
    return buffer.getvalue()
