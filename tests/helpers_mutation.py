"""Damage small real files in a thousand ways and read each: run as a program, so that its memory is its own.

python tests/helpers_mutation.py COUNT SEED FOLDER   ->  one line of JSON
"""

from __future__ import annotations

import json
import logging
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from helpers_media import encoded, make_clip, photo
from helpers_processes import peak_bytes
from smolvlm.config import ProcessorConfig
from smolvlm.errors import SmolVLMError
from smolvlm.media import Limits, MediaOptions, SourcePolicy, load_image, media_kind, open_source, sample_video, split_image

CONFIG = ProcessorConfig(tile_size=64, longest_edge=128, video_longest_edge=64)
# Small limits, so that a header that asks for more is seen in the process's peak.
POLICY = SourcePolicy(limits=Limits(max_image_pixels=4_000_000, max_video_pixels=4_000_000))


def seeds(folder: Path) -> dict[str, bytes]:
    """Small real files of every common kind, some with metadata for the parsers to stumble over."""
    image = photo(72, 48)
    palette = image.quantize(32)
    exif = image.getexif()
    exif[0x0112] = 6
    x264 = {"g": "8", "preset": "veryfast"}
    clips = {
        "b.mp4": make_clip(folder / "b.mp4", 24, options={**x264, "bf": "2"}, audio="aac", size=(96, 64)),
        "fragments.mp4": make_clip(
            folder / "f.mp4", 24, options=x264, size=(96, 64), container_options={"movflags": "frag_keyframe+empty_moov"}
        ),
        "x.mkv": make_clip(folder / "x.mkv", 24, options={**x264, "bf": "2"}, size=(96, 64)),
        "v.webm": make_clip(folder / "v.webm", 16, codec="libvpx-vp9", options={"g": "8", "cpu-used": "8"}, size=(96, 64)),
        "x.ts": make_clip(folder / "x.ts", 24, options=x264, size=(96, 64)),
        "x.avi": make_clip(folder / "x.avi", 24, codec="mpeg4", options={"g": "8"}, size=(96, 64)),
    }
    return {
        "x.png": encoded(image, "PNG", exif=exif),
        "p.png": encoded(palette, "PNG", transparency=3),
        "x.jpg": encoded(image, "JPEG", exif=exif),
        "prog.jpg": encoded(image, "JPEG", progressive=True),
        "x.gif": encoded(palette, "GIF", save_all=True, append_images=[palette.rotate(90)]),
        "x.webp": encoded(image, "WEBP", exif=exif),
        "lossless.webp": encoded(image, "WEBP", lossless=True),
        "x.tif": encoded(image, "TIFF", compression="tiff_lzw"),
        "x.bmp": encoded(image, "BMP"),
        "x.ico": encoded(image.resize((48, 48)), "ICO"),
        "x.jp2": encoded(image, "JPEG2000"),
        "x.avif": encoded(image, "AVIF"),
        **{name: path.read_bytes() for name, path in clips.items()},
    }


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four of: flipped bits, noise, huge or zero integers, a cut, a doubled or removed piece, swapped pieces."""
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        if len(out) < 8:
            break
        # Headers are short and do the most harm: half of all damage lands in the first 400 bytes.
        reach = min(len(out) - 4, 400) if rng.random() < 0.5 else len(out) - 4
        at, n = int(rng.integers(0, max(reach, 1))), int(2 ** rng.uniform(0, 9))
        kind = rng.integers(0, 8)
        if kind == 0:
            for _ in range(n):
                i = int(rng.integers(0, len(out)))
                out[i] ^= 1 << int(rng.integers(0, 8))
        elif kind == 1:
            out[at : at + n] = rng.bytes(min(n, len(out) - at))
        elif kind == 2:
            out[at : at + 4] = int(rng.choice([0, 1, 255, 65535, 17_000_000, 2**31 - 1, 2**32 - 1])).to_bytes(
                4, "big" if rng.random() < 0.5 else "little"
            )
        elif kind == 3:
            del out[at:]
        elif kind == 4:
            out[at:at] = out[at : at + n]
        elif kind == 5:
            del out[at : at + n]
        elif kind == 6:
            other = int(rng.integers(0, len(out)))
            piece = bytes(out[other : other + n])
            out[at : at + len(piece)] = piece
        else:
            out[at] = int(rng.integers(0, 256))
    return bytes(out)


def read(name: str, data: bytes, path: Path, rng: np.random.Generator) -> Any:
    """Read damaged data the way its kind is read, from a file or from memory."""
    source: Any = data
    if rng.random() < 0.5 and data:
        path.write_bytes(data)
        source = path
    if rng.random() < 0.2:
        media_kind(open_source(source, POLICY), POLICY.limits)
    if Path(name).suffix in (".mp4", ".mkv", ".webm", ".ts", ".avi"):
        return sample_video(source, CONFIG, MediaOptions(fps=float(rng.choice([1, 5, 30]))), POLICY).frames
    return split_image(load_image(source, POLICY), CONFIG).tiles


def run(count: int, seed: int, folder: Path) -> dict[str, Any]:
    """Outcomes by kind, what came out that is not ours, the peak of memory above the start in bytes, the slowest."""
    originals = seeds(folder)
    for name, data in originals.items():  # sound files are read; also warms up libraries before memory is measured
        read(name, data, folder / "warm", np.random.default_rng(0))
    start = peak_bytes()
    outcomes: Counter[str] = Counter()
    foreign: list[str] = []
    slowest, slowest_name = 0.0, ""
    names = list(originals)
    for n in range(count):
        rng = np.random.default_rng([seed, n])
        name = names[n % len(names)]
        begin = time.perf_counter()
        try:
            pixels = read(name, mutate(originals[name], rng), folder / f"m{Path(name).suffix}", rng)
            assert pixels.dtype == np.uint8
            assert pixels.shape[1:] == (64, 64, 3)
            outcomes["read"] += 1
        except SmolVLMError as error:
            outcomes[type(error).__name__] += 1
            if "\n" in str(error) or len(str(error)) > 500:
                foreign.append(f"{name} #{n}: a message that is no sentence: {error!r}")
        except BaseException as error:
            foreign.append(f"{name} #{n}: {error!r}")
        if (took := time.perf_counter() - begin) > slowest:
            slowest, slowest_name = took, f"{name} #{n}"
    peak = peak_bytes()
    return {"outcomes": dict(outcomes), "foreign": foreign, "grown_bytes": peak - start, "slowest_s": slowest, "slowest": slowest_name}


if __name__ == "__main__":
    logging.disable()
    warnings.simplefilter("error")  # a library's warning that reaches the user is a foreign exception too
    print(json.dumps(run(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))))
