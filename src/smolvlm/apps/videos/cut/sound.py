"""The sound of a cut: one track from end to end, apart from the picture's packets, copied or encoded."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np

from smolvlm.media import Video

_EARLIER_S = 1.0  # files interleave their streams this loosely


@dataclass(frozen=True)
class Span:
    """A piece: `start_s` of the file's own clock, `length_s`, and `at_s` in the cut."""

    start_s: Fraction
    length_s: Fraction
    at_s: Fraction


def copied_sound(video: Video, index: int, spans: Sequence[Span], scale: int) -> Iterator[Any]:
    """The packets of stream `index` with times in 1/`scale` s, without gap or overlap.

    A packet is taken where its middle lies in the piece. At a seam it may come half a packet early or late (11 ms of AAC at
    48 kHz), which never adds up: each packet is set against the cut's own clock.
    """
    container = video.container()
    try:
        stream = container.streams[index]
        clock = Fraction(0)
        for span in spans:
            clock = yield from _piece(container, stream, span, clock, scale)
    finally:
        container.close()


def _piece(container: Any, stream: Any, span: Span, clock: Fraction, scale: int) -> Any:
    """Yields a piece's packets; gives where the clock stands after them."""
    end = span.at_s + span.length_s
    for packet, begins, lasts in _timed(container, stream, span.start_s):
        wanted = span.at_s + begins - span.start_s  # its time in the cut
        if wanted < max(clock, span.at_s) - lasts / 2:
            continue
        if wanted >= end - lasts / 2:
            break
        if wanted - clock > lasts:  # a gap in the source
            clock = wanted
        packet.pts = packet.dts = round(clock * scale)
        packet.duration = round((clock + lasts) * scale) - packet.pts
        packet.time_base = Fraction(1, scale)
        yield packet
        clock += lasts
    return clock


def _timed(container: Any, stream: Any, start_s: Fraction) -> Iterator[tuple[Any, Fraction, Fraction]]:
    """(packet, when it begins, how long it lasts) from `start_s` on, seconds of the file's clock."""
    context = stream.codec_context
    frame_s = Fraction(context.frame_size, context.sample_rate) if context.frame_size and context.sample_rate else None
    container.seek(int((start_s - Fraction(_EARLIER_S)) / stream.time_base), stream=stream, backward=True)
    for packet in container.demux(stream):
        if packet.size and packet.pts is not None:
            lasts = frame_s or Fraction(packet.duration or 0) * packet.time_base
            if lasts > 0:
                yield packet, packet.pts * packet.time_base, lasts


def encoded_sound(video: Video, spans: Sequence[Span], origin_s: Fraction, context: Any) -> Iterator[Any]:
    """The video's sound, exact to the sample, encoded by `context`, an opened encoder."""
    rate, channels = int(context.sample_rate), int(context.layout.nb_channels)
    fifo, at = av.AudioFifo(), 0  # it counts the samples, which are the frames' times
    for span in spans:
        due = round((span.at_s + span.length_s) * rate)
        begin = float(span.start_s - origin_s)
        first = round(span.at_s * rate)
        for block in video.sound(begin, begin + float(span.length_s), sample_rate=rate, channels=channels):
            place = first + round((block.time_s - begin) * rate)
            _silence(fifo, place - at, rate, channels)
            samples = block.samples[max(at - place, 0) : max(due - place, 0)]
            at = max(at, place) + _write(fifo, samples, rate, channels)
            yield from _drained(fifo, context)
        _silence(fifo, due - at, rate, channels)
        at = max(at, due)
        yield from _drained(fifo, context)
    yield from _drained(fifo, context, last=True)
    yield from context.encode(None)


def _write(fifo: Any, samples: Any, rate: int, channels: int) -> int:
    if len(samples):
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1).copy(), "flt", layout="mono" if channels == 1 else "stereo")
        frame.sample_rate = rate
        frame.pts, frame.time_base = None, Fraction(1, rate)
        fifo.write(frame)
    return len(samples)


def _silence(fifo: Any, count: int, rate: int, channels: int) -> None:
    while count > 0:
        count -= _write(fifo, np.zeros((min(count, rate), channels), np.float32), rate, channels)


def _drained(fifo: Any, context: Any, *, last: bool = False) -> Iterator[Any]:
    size = int(context.frame_size) or 1024
    while fifo.samples >= size or (last and fifo.samples):
        frame = fifo.read(min(size, fifo.samples))
        frame.pts = fifo.samples_read - frame.samples
        frame.time_base = Fraction(1, int(context.sample_rate))
        yield from context.encode(frame)
