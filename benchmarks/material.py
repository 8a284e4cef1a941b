"""What all systems read: one random checkpoint, one picture, one clip, and the checkpoint in the formats of the peers.

Made once and kept in `.work/`.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from PIL import Image

from benchmarks.machine import WORK
from smolvlm.checkpoint import write_random_checkpoint

IMAGE_SIZE = (1280, 720)
CLIP_SECONDS = 64  # at one sampled frame a second: the 64 frames that a prompt holds at most
CLIP_FPS = 24


def checkpoint(size: str, dtype: str) -> Path:
    """A random checkpoint of official format."""
    folder = WORK / f"random-{size}-{dtype}"
    return folder if (folder / "config.json").exists() else write_random_checkpoint(folder, size, dtype)


def for_peer(folder: Path, name: str, write: Callable[[Path], None]) -> Path:
    """The folder in which `write` has put a peer's form of the checkpoint in `folder`; written whole or not at all."""
    path = WORK / "peers" / folder.name / name
    if path.exists():
        return path
    part = path.with_name(f"{name}.part")
    shutil.rmtree(part, ignore_errors=True)  # of a run that was interrupted
    part.mkdir(parents=True)
    write(part)
    part.rename(path)
    return path


def image() -> Path:
    """1280 x 720: 4 x 3 tiles and the whole, 13 in all."""
    path = WORK / "picture-1280x720.png"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(next(_frames(*IMAGE_SIZE))).save(path)
    return path


def clip() -> Path:
    """64 s of 1280 x 720 H.264 at 24 frames/s, a key frame every two seconds."""
    return make_clip(WORK / "clip-1280x720.mp4", *IMAGE_SIZE, seconds=CLIP_SECONDS, fps=CLIP_FPS, gop=2 * CLIP_FPS)


def make_clip(path: Path, width: int, height: int, *, seconds: int, fps: int, gop: int) -> Path:
    """Encode moving scenery by PyAV's own libx264; written whole or not at all."""
    if path.exists():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    with av.open(part, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.time_base = Fraction(1, fps)
        stream.options = {"preset": "veryfast", "g": str(gop), "sc_threshold": "0", "crf": "26"}
        for i, pixels in zip(range(seconds * fps), _frames(width, height), strict=False):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, fps)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    shutil.move(part, path)
    return path


def _frames(width: int, height: int) -> Iterator[npt.NDArray[np.uint8]]:
    """A textured background that pans, under a disc that circles: motion everywhere, as in a hand-held clip."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (24, 48, 3), dtype=np.uint8))
    background = np.asarray(coarse.resize((2 * width, height), Image.Resampling.BICUBIC))
    rows, columns = np.mgrid[0:height, 0:width]
    i = 0
    while True:
        start = int((np.sin(i / 60) + 1) / 2 * width)
        frame = background[:, start : start + width].copy()
        centre = width / 2 + width / 3 * np.cos(i / 20), height / 2 + height / 3 * np.sin(i / 20)
        disc = (columns - centre[0]) ** 2 + (rows - centre[1]) ** 2 < (height / 8) ** 2
        frame[disc] = (255 - i % 256, 64, i % 256)
        yield frame
        i += 1
