"""The media of the demo and of the docs' examples: samples of the test split, which no training has seen, as ordinary files.

    python tools/make_demo_media.py            # writes examples/media/nano/ and the page's copies, and prints their truth

They were picked among those that nano answers with a margin: tests/test_readme.py measures it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from smolvlm.synth import SMALL, Sample, generate

OUT = Path(__file__).resolve().parents[1] / "examples" / "media" / "nano"
WORLD = replace(SMALL, side_px=384)
# Names (two for a pair), generator, number of the sample in the test split.
FILES: tuple[tuple[tuple[str, ...], str, int], ...] = (
    (("scene.png",), "scene", 3),
    (("sign.png",), "writing", 63),
    (("clip.mp4",), "clip", 30),
    (("before.png", "after.png"), "pair", 13),
    (("part.png",), "part", 5),
    (("room.png",), "room", 6),
)
PAGE = Path(__file__).resolve().parents[1] / "src" / "smolvlm" / "ui" / "media"
FPS = 8


def write_clip(sample: Sample, path: Path) -> None:
    """H.264 at 8 frames a second; each of the sample's frames stands until the next."""
    assert sample.duration_s is not None, "a clip has a duration"
    height, width, _ = sample.frames[0].shape
    hold = round(sample.duration_s / len(sample.frames) * FPS)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "18"})
        stream.width, stream.height, stream.pix_fmt = width // 2 * 2, height // 2 * 2, "yuv420p"
        stream.time_base = Fraction(1, FPS)
        for number in range(hold * len(sample.frames)):
            pixels = np.ascontiguousarray(sample.frames[number // hold][: stream.height, : stream.width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))


def main() -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    for names, generator, index in FILES:
        sample = generate(generator, "test", index, WORLD)
        if sample.kind == "video":
            write_clip(sample, OUT / names[0])
        else:
            for name, frame in zip(names, sample.frames, strict=True):
                Image.fromarray(frame).save(OUT / name, optimize=True)
        for question in sample.questions:
            print(f"{' '.join(names)}: {question.text} {question.answer}")
    for copy in PAGE.iterdir():
        shutil.copyfile(OUT / copy.name, copy)


if __name__ == "__main__":
    main()
