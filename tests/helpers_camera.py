"""A drawn room as a camera would film it, in a file: the clip's first picture, its change, and its last picture for some seconds."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from smolvlm.synth.generate import generate
from smolvlm.synth.sample import Sample


def room_clip(event: str, skip: int = 0) -> Sample:
    """The (`skip` + 1)-th held-out clip of a room in which `event` happens."""
    for index in range(400):
        sample = generate("room_clip", "test", index)
        if any(question.task == "event" and question.answer == event for question in sample.questions):
            if not skip:
                return sample
            skip -= 1
    raise AssertionError(f"no clip of {event}")


def film(path: Path, sample: Sample, still_s: float = 4.0) -> Path:
    """The clip's pictures a second each, between `still_s` of its first and of its last."""
    pictures = [(sample.frames[0], still_s), *((picture, 1.0) for picture in sample.frames[1:-1]), (sample.frames[-1], still_s)]
    height, width, _ = sample.frames[0].shape
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(8))
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for picture, seconds in pictures:
            for _ in range(round(8 * seconds)):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        container.mux(stream.encode(None))
    return path
