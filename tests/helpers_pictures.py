"""Picture files written by hand where no encoder here writes them: TIFF pages of every kind, ICC profiles, camera files."""

from __future__ import annotations

import io
import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

Pixels = np.ndarray[Any, Any]

# Red, green and blue as X, Y, Z under D50, by the Bradford method from the published primaries (columns of the matrices of
# SMPTE EG 432-1 and Adobe RGB (1998), section 4).
DISPLAY_P3 = ((0.51512, 0.24120, -0.00105), (0.29198, 0.69225, 0.04189), (0.15710, 0.06657, 0.78407))
ADOBE_RGB = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))
SRGB = ((0.43607, 0.22249, 0.01392), (0.38515, 0.71687, 0.09708), (0.14307, 0.06061, 0.71410))


def drawn(width: int = 48, height: int = 32) -> Pixels:
    """Smooth colors, so that lossy formats keep them, with one corner of another color, so that every turn shows."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    pixels = np.stack([60 + 150 * x / max(width - 1, 1), 40 + 170 * y / max(height - 1, 1), np.full_like(x, 96)], axis=2)
    pixels[: height // 4, : width // 4] = (230, 40, 40)
    return pixels.round().astype(np.uint8)


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def turned(pixels: Pixels, orientation: int) -> Pixels:
    """What a viewer shows of `pixels` stored with this EXIF orientation (TIFF 6.0, page 36), by index arithmetic."""
    rows_first = orientation < 5
    stored = pixels if rows_first else pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        stored = stored[::-1]
    if orientation in (2, 3, 6, 7):
        stored = stored[:, ::-1]
    return stored


@dataclass
class TiffPage:
    """One directory: `tags` are (number, type, values); `data` becomes its one strip, or the JPEG of tag 513."""

    tags: dict[int, tuple[int, list[int]]]
    data: bytes = b""
    jpeg: bool = False
    subs: list[TiffPage] = field(default_factory=list)


def rgb_page(pixels: Pixels, subfile: int | None = None, orientation: int | None = None, **more: Any) -> TiffPage:
    height, width = pixels.shape[:2]
    tags = {256: (4, [width]), 257: (4, [height]), 258: (3, [8, 8, 8]), 259: (3, [1]), 262: (3, [2]), 277: (3, [3]), 278: (4, [height])}
    if subfile is not None:
        tags[254] = (4, [subfile])
    if orientation is not None:
        tags[274] = (3, [orientation])
    return TiffPage(tags, pixels.tobytes(), **more)


def jpeg_page(data: bytes, width: int, height: int, subfile: int = 1) -> TiffPage:
    """A preview as DNG keeps it: one strip that is a JPEG (compression 7)."""
    return TiffPage(
        {
            254: (4, [subfile]),
            256: (4, [width]),
            257: (4, [height]),
            258: (3, [8, 8, 8]),
            259: (3, [7]),
            262: (3, [6]),
            277: (3, [3]),
            278: (4, [height]),
        },
        data,
    )


def sensor_page(width: int, height: int) -> TiffPage:
    """What a camera measured: a color filter array of 16 bits."""
    values = np.random.default_rng(0).integers(0, 4096, (height, width)).astype("<u2")
    return TiffPage(
        {
            254: (4, [0]),
            256: (4, [width]),
            257: (4, [height]),
            258: (3, [16]),
            259: (3, [1]),
            262: (3, [32803]),
            277: (3, [1]),
            278: (4, [height]),
        },
        values.tobytes(),
    )


def make_tiff(
    pages: list[TiffPage], order: str = "<", extra: dict[int, tuple[int, list[int]]] | None = None, magic: bytes | None = None
) -> bytes:
    """A classic TIFF of these pages, chained; `extra` tags go into the first one."""
    out = bytearray(magic or (b"II*\0" if order == "<" else b"MM\0*")) + bytearray(4)
    if extra:
        pages[0].tags |= extra

    def write(page: TiffPage) -> int:
        tags = dict(page.tags)
        if page.data:
            at = len(out)
            out.extend(page.data + b"\0" * (len(page.data) % 2))
            if page.jpeg:
                tags |= {513: (4, [at]), 514: (4, [len(page.data)])}
            else:
                tags |= {273: (4, [at]), 279: (4, [len(page.data)])}
        if page.subs:
            tags[330] = (4, [write(sub) for sub in page.subs])
        body = struct.pack(order + "H", len(tags))
        for number in sorted(tags):
            kind, values = tags[number]
            packed = struct.pack(f"{order}{len(values)}{ {1: 'B', 3: 'H', 4: 'I'}[kind] }", *values)
            if len(packed) > 4:
                out.extend(packed + b"\0" * (len(packed) % 2))
                packed = struct.pack(order + "I", len(out) - len(packed) - len(packed) % 2)
            body += struct.pack(order + "HHI", number, kind, len(values)) + packed.ljust(4, b"\0")
        at = len(out)
        out.extend(body + bytes(4))
        return at

    link = 4
    for page in pages:
        at = write(page)
        out[link : link + 4] = struct.pack(order + "I", at)
        link = len(out) - 4
    return bytes(out)


def icc_profile(colorants: tuple[tuple[float, ...], ...], gamma: float, name: str) -> bytes:
    """A matrix profile of version 2 (ICC.1:2001-04)."""
    text = name.encode("ascii") + b"\0"
    desc = b"desc" + bytes(4) + struct.pack(">I", len(text)) + text + bytes(78)
    tags = [(b"desc", desc), (b"wtpt", _xyz((0.9642, 1.0, 0.8249))), (b"cprt", b"text" + bytes(4) + b"none\0")]
    tags += [(key + b"XYZ", _xyz(values)) for key, values in zip((b"r", b"g", b"b"), colorants, strict=True)]
    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256))
    tags += [(key + b"TRC", curve) for key in (b"r", b"g", b"b")]
    table, body = struct.pack(">I", len(tags)), b""
    start = 128 + 4 + 12 * len(tags)
    for key, value in tags:
        table += key + struct.pack(">II", start + len(body), len(value))
        body += value + b"\0" * (-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", 128 + len(table) + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ")
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + struct.pack(">iii", 63190, 65536, 54061)
    return head.ljust(128, b"\0") + table + body


def _xyz(values: tuple[float, ...]) -> bytes:
    return b"XYZ " + bytes(4) + struct.pack(">iii", *(round(v * 65536) for v in values))


def to_srgb_by_hand(pixels: Pixels, colorants: tuple[tuple[float, ...], ...], gamma: float) -> Pixels:
    """The same conversion that a color engine makes, in float64: curve, matrix, matrix, curve (IEC 61966-2-1)."""
    light = (pixels / 255.0) ** gamma @ np.array(colorants)
    linear = np.clip(light @ np.linalg.inv(np.array(SRGB)), 0, 1)
    signal = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (signal * 255).round().astype(np.uint8)
