"""A clip as a video file that loses nothing: QuickTime holding PNG frames."""

from __future__ import annotations

import io
from fractions import Fraction

import av
import numpy as np

from smolvlm.synth.sample import Sample

SUFFIX = ".mov"


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
