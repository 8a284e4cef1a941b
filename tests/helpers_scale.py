"""What the tests of `smolvlm batch` share: drawn media, settings, and the program as users start it."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from PIL import Image, ImageDraw

from helpers_media import make_clip
from smolvlm.checkpoint.identity import fingerprint_of
from smolvlm.hub import resolve
from smolvlm.scale.settings import BatchSettings, ModelSpec

ROOT = Path(__file__).resolve().parents[1]
QUESTION = "Describe this picture."
COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "black", "brown")
BROKEN = (
    b"",
    b"\xff\xd8\xff\xe0 is how a JPEG begins, and nothing follows",
    b"\x89PNG\r\n\x1a\n" + bytes(40),
    b"\0\0\0\x18ftypmp42" + bytes(300),
)


def scene(number: int) -> Image.Image:
    """A disc and a square on white: every number another picture."""
    draw = random.Random(number)
    image = Image.new("RGB", (96 + number % 5, 96), "white")
    pen = ImageDraw.Draw(image)
    for shape in (pen.ellipse, pen.rectangle):
        x, y = draw.randrange(60), draw.randrange(60)
        shape((x, y, x + 30, y + 30), fill=draw.choice(COLOURS))
    return image


def fill(folder: Path, count: int, *, every_broken: int = 20, every_clip: int = 10) -> list[str]:
    """Write `count` files: pictures, short clips, and broken ones of either kind; the names of the broken, in order."""
    folder.mkdir(parents=True, exist_ok=True)
    broken = []
    for number in range(count):
        name = f"{number:05d}"
        if number % every_broken == every_broken - 1:
            kind = BROKEN[number // every_broken % len(BROKEN)]
            path = folder / f"{name}{'.mp4' if kind.startswith(bytes(3)) else '.jpg'}"
            path.write_bytes(kind)
            broken.append(path.name)
        elif number % every_clip == every_clip - 2:
            make_clip(folder / f"{name}.mp4", 8, rate=4, size=(96, 96))
        else:
            scene(number).save(folder / f"{name}.png")
    return broken


def settings(inputs: Sequence[object], **changes: Any) -> BatchSettings:
    """A run of nano with short answers, in small parts."""
    spec = ModelSpec("nano", fingerprint_of(resolve("nano")), device="cpu")
    values: dict[str, Any] = {"model": spec, "questions": (QUESTION,), "options": {"max_new_tokens": 16}, "part_inputs": 4}
    return BatchSettings(inputs=tuple(map(str, inputs)), **{**values, **changes})


def read(out: Path) -> list[dict[str, Any]]:
    return list(pq.read_table(out).to_pylist())


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "smolvlm", "batch", *map(str, args)]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1", "SMOLVLM_THREADS": "1"}


def run(*args: object, timeout_s: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(*args), env=environment(), capture_output=True, text=True, timeout=timeout_s, check=False)
