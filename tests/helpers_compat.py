"""What the compat tests share: the two sides, each with its own processor and model of one tiny checkpoint."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from helpers_media import photo
from helpers_prompt import reference_processor, tiny_checkpoint

GREY_STEP = 2 / 255  # one 8-bit step after normalization to -1..1
CALL = {"add_generation_prompt": True, "tokenize": True, "return_dict": True}


@dataclass(frozen=True)
class Side:
    """A processor and a model, of `transformers` or of ours."""

    processor: Any
    model: Any


@functools.cache
def reference() -> Side:
    """`transformers` in float32; pictures by its Pillow path, videos read by PyAV."""
    from oracle import transformers

    folder = tiny_checkpoint()
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    return Side(reference_processor(folder), model)


@functools.cache
def ours() -> Side:
    from smolvlm import AutoModelForImageTextToText, AutoProcessor

    folder = tiny_checkpoint()
    return Side(AutoProcessor.from_pretrained(folder), AutoModelForImageTextToText.from_pretrained(folder))


def image_part(width: int, height: int, seed: int = 0) -> dict[str, Any]:
    return {"type": "image", "image": photo(width, height, seed)}


def text_part(text: str) -> dict[str, Any]:
    return {"type": "text", "text": text}


def user(*content: Any) -> dict[str, Any]:
    return {"role": "user", "content": list(content)}


def conversations(folder: Path) -> dict[str, list[Any]]:
    """Each conversation, or batch of them, by name. `folder` takes the clips; pictures are small, as the tiles are."""
    short, other, long = (folder / f"{name}.mp4" for name in ("short", "other", "long"))
    if not long.exists():
        smooth_clip(short, 40, (128, 96))
        smooth_clip(other, 40, (96, 160))
        smooth_clip(long, 90, (128, 96))
    wide, tall = image_part(150, 60, 1), image_part(40, 130, 2)
    clip, upright, longer = ({"type": "video", "path": str(path)} for path in (short, other, long))
    asked = text_part("What is this? Answer in two words.")
    return {
        "text": [user(asked)],
        "one image": [user(wide, asked)],
        "text first": [user(asked, wide)],
        "three interleaved": [user(wide, text_part("and"), tall, text_part("then"), wide, asked)],
        "system and turns": [
            {"role": "system", "content": [text_part("Be brief.")]},
            user(wide, asked),
            {"role": "assistant", "content": [text_part("A gradient.")]},
            user(text_part("Sure?")),
        ],
        "video": [user(clip, asked)],
        "two videos": [user(clip, text_part("against"), upright, asked)],
        "unequal videos": [user(clip, text_part("against"), longer, asked)],
        "batch": [[user(wide, asked)], [user(tall, wide, text_part("Differences?"))], [user(text_part("Hello"))]],
        "video batch": [[user(clip, asked)], [user(upright, text_part("Why?"))]],
    }


def smooth_clip(path: Path, count: int, size: tuple[int, int]) -> None:
    """A moving gradient, 10 frames a second. Hard edges overshoot when frames are enlarged, and the reference's torchvision
    and Pillow then clip at different moments; smooth frames stay within a grey level of each other."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(count):
            waves = [128 + 90 * np.sin((x + 5 * i) / 31), 128 + 90 * np.cos((y - 3 * i) / 27), 128 + 60 * np.sin((x + y) / 45)]
            frame = av.VideoFrame.from_ndarray(np.stack(waves, axis=2).astype(np.uint8), "rgb24")
            for packet in stream.encode(frame):
                out.mux(packet)
        for packet in stream.encode(None):
            out.mux(packet)


def assert_same_inputs(ours: Any, theirs: Any, pixel_tolerance: float) -> None:
    """The same keys in the same order, types, shapes and values."""
    assert list(ours) == list(theirs)
    for name in theirs:
        assert type(ours[name]) is type(theirs[name]), name
        mine, other = np.asarray(ours[name]), np.asarray(theirs[name])
        assert mine.shape == other.shape, name
        assert mine.dtype == other.dtype, name
        tolerance = pixel_tolerance if name == "pixel_values" else 0
        assert np.abs(mine.astype(np.float64) - other.astype(np.float64)).max() <= tolerance, name
