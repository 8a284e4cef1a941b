"""The demo's picture, sign and clip: samples of the test split, which no training has seen, as ordinary files.

    python tools/make_demo_media.py            # writes examples/media/nano/{scene.png,sign.png,clip.mp4}
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from smolvlm.synth import SMALL, Sample, generate

OUT = Path(__file__).resolve().parents[1] / "examples" / "media" / "nano"
WORLD = replace(SMALL, side_px=384)
SCENE, SIGN, CLIP = 3, 106, 30  # numbers of samples of the test split
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
    for name, generator, index in (("scene.png", "scene", SCENE), ("sign.png", "writing", SIGN), ("clip.mp4", "clip", CLIP)):
        sample = generate(generator, "test", index, WORLD)
        if sample.kind == "video":
            write_clip(sample, OUT / name)
        else:
            Image.fromarray(sample.frames[0]).save(OUT / name, optimize=True)
        for question in sample.questions:
            print(f"{name}: {question.text} {question.answer}")


if __name__ == "__main__":
    main()
