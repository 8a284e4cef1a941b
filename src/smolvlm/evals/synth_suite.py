"""The built-in benchmark as a suite: pictures as pictures, clips as lossless video files at the samples' own times."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import av
import numpy as np
from PIL import Image

from smolvlm.evals.suite import Case, Suite, Task
from smolvlm.synth.benchmark import TASKS, items
from smolvlm.synth.generate import VERSION
from smolvlm.synth.sample import Sample
from smolvlm.synth.world import SMALL, World


def synth_suite(world: World = SMALL) -> Suite:
    """The held-out tasks of `smolvlm.synth.benchmark`, drawn in `world`."""

    def cases(task: str, count: int, first: int) -> Iterator[Case]:
        for item in items(task, count, world):
            if item.number >= first:  # drawing what is skipped keeps the others the same
                yield Case(task, item.number, media_of(item.sample), item.question.text, item.question.answer)

    tasks = {name: Task(name, spec.description, spec.is_caption) for name, spec in TASKS.items()}
    settings = {"world": world.name, "side_px": world.side_px}
    return Suite("synth", VERSION, tasks, cases, lambda _task, count: count, settings)


def media_of(sample: Sample) -> tuple[Mapping[str, Any], ...]:
    """The sample's frames as parts of a message."""
    if sample.kind == "video":
        return ({"type": "video", "bytes": video_bytes(sample)},)
    return tuple({"type": "image", "image": Image.fromarray(frame)} for frame in sample.frames)


def video_bytes(sample: Sample) -> bytes:
    """A clip's frames as a QuickTime file of PNG frames: pixels exact, and a frame rate at which the reader samples
    every frame at the sample's own times. A list of frames could not say that the last one lasts, too.
    """
    count, duration_s = len(sample.frames), sample.duration_s
    assert duration_s is not None, "a clip has a duration"
    step = Fraction(duration_s / count).limit_denominator(1000)
    assert np.allclose(sample.timestamps_s, np.arange(count) * float(step)), "a clip's frames are evenly spread"
    height, width, _ = sample.frames[0].shape
    file = io.BytesIO()
    with av.open(file, "w", format="mov") as container:
        stream = container.add_stream("png", rate=1 / step)
        stream.width, stream.height, stream.pix_fmt = width, height, "rgb24"
        stream.time_base = stream.codec_context.time_base = step
        for index, pixels in enumerate(sample.frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file.getvalue()
