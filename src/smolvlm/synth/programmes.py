"""Programmes: many clips, one behind the other, as one long video file whose events and their times are known."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from PIL import Image

from smolvlm.errors import SynthError
from smolvlm.synth.generate import generate
from smolvlm.synth.sample import Pixels, Sample, Split

_SIDE = 192
_GROUND = (127, 127, 127)


@dataclass(frozen=True)
class PlannedEvent:
    """What happens from `start_s` to `end_s`, in the words of the benchmark; `index` is the clip's number in its generator."""

    start_s: float
    end_s: float
    text: str
    index: int


def clips_with_distinct_events(count: int, split: Split = "test", generator: str = "clip", first: int = 0) -> list[tuple[int, Sample, str]]:
    """(number, clip, event) of the first `count` clips in which something happens that happens in none before."""
    found: list[tuple[int, Sample, str]] = []
    seen = {"nothing happens", "nothing changes"}
    for index in range(first, first + 200 * count):
        sample = generate(generator, split, index)
        event = next(question.answer for question in sample.questions if question.task == "event")
        if event not in seen and "nothing" not in event:
            seen.add(event)
            found.append((index, sample, event))
        if len(found) == count:
            return found
    raise SynthError(f"the generator {generator!r} has no {count} clips with events of their own.")


def write_programme(
    path: str | os.PathLike[str],
    clips: Sequence[tuple[int, Sample, str]],
    *,
    rate: int = 10,
    fade_s: float = 0.0,
    scene_cuts: bool = True,
    beep: bool = False,
) -> list[PlannedEvent]:
    """Write the clips as H.264 in MP4, each frame shown for its second(s); what happens when comes back.

    fade_s: each clip comes up from black and goes down to it that long, else it is cut hard. scene_cuts: whether the encoder puts
    a key frame at each cut; without, key frames come every 25 seconds wherever that is. beep: a sound track, loud at events.
    """
    events: list[PlannedEvent] = []
    with av.open(os.fspath(path), "w", format="mp4") as out:
        options = {"preset": "veryfast", "crf": "20", **({} if scene_cuts else {"sc_threshold": "0", "bf": "0"})}
        stream = out.add_stream("libx264", rate=rate, options=options)
        stream.width = stream.height = _SIDE
        stream.pix_fmt, stream.gop_size = "yuv420p", 25 * rate
        sound = out.add_stream("aac", rate=16000) if beep else None
        number = 0
        for index, sample, text in clips:
            begin = number
            for pixels in _shown(sample, rate, fade_s):
                frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
                frame.pts, frame.time_base = number, Fraction(1, rate)
                out.mux(stream.encode(frame))
                number += 1
            events.append(PlannedEvent(begin / rate, number / rate, text, index))
        out.mux(stream.encode(None))
        if sound is not None:
            for block in _tones(number / rate, events):
                out.mux(sound.encode(block))
            out.mux(sound.encode(None))
    return events


def _shown(sample: Sample, rate: int, fade_s: float) -> Iterator[Pixels]:
    """The clip's frames, each repeated until the next, on a square ground."""
    step = round((sample.duration_s or len(sample.frames)) / len(sample.frames) * rate)
    count, fading = step * len(sample.frames), round(fade_s * rate)
    squares = [_square(frame) for frame in sample.frames]
    for i in range(count):
        pixels = squares[i // step]
        light = min(1.0, (i + 1) / (fading + 1), (count - i) / (fading + 1))
        yield pixels if light == 1 else (pixels * np.float32(light)).astype(np.uint8)


def _square(pixels: Pixels) -> Pixels:
    image = Image.fromarray(pixels)
    image.thumbnail((_SIDE, _SIDE))
    ground = Image.new("RGB", (_SIDE, _SIDE), _GROUND)
    ground.paste(image, ((_SIDE - image.width) // 2, (_SIDE - image.height) // 2))
    return np.asarray(ground)


def _tones(duration_s: float, events: Sequence[PlannedEvent]) -> Iterator[av.AudioFrame]:
    """A soft tone that is loud in every second event."""
    rate = 16000
    time_s = np.arange(int(duration_s * rate)) / rate
    level = np.full(len(time_s), 0.01, np.float32)
    for event in events[1::2]:
        level[int(event.start_s * rate) : int(event.end_s * rate)] = 0.5
    samples = (np.sin(2 * np.pi * 440 * time_s) * level).astype(np.float32)
    for start in range(0, len(samples) - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(samples[None, start : start + 1024], "fltp", layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = rate, start, Fraction(1, rate)
        yield frame
