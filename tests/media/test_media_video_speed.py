"""Sampling a long video by seeking against decoding all of it: time, and frames decoded."""

from __future__ import annotations

import time
from itertools import islice
from pathlib import Path

import av
import numpy as np
import pytest

from helpers_media import OFFICIAL, make_clip
from smolvlm.media import Limits, MediaOptions, open_source, sample_video
from smolvlm.media.video_reader import VideoReader


@pytest.mark.slow
def test_twenty_minutes_of_1080p(tmp_path: Path) -> None:
    """H.264, a key frame each second: 64 frames, each at most one group, at least ten times faster than all 36,000.

    The film repeats its ten seconds, so decoding a tenth of it, times ten, is what decoding it all takes.
    """
    part = make_clip(tmp_path / "part.mp4", 300, rate=30, size=(1920, 1080), options={"preset": "veryfast", "g": "30"})
    path = tmp_path / "long.mp4"
    with av.open(str(part)) as inside, av.open(str(path), "w") as out:
        source = inside.streams.video[0]
        stream = out.add_stream_from_template(source)
        packets = [p for p in inside.demux(source) if p.size]
        length = int(10 / source.time_base)
        times = [(p.pts, p.dts) for p in packets]
        for n in range(120):
            for packet, (pts, dts) in zip(packets, times, strict=True):
                packet.pts, packet.dts, packet.stream = pts + n * length, dts + n * length, stream
                out.mux(packet)
    began = time.perf_counter()
    video = sample_video(path, OFFICIAL)
    sought_s = time.perf_counter() - began
    assert len(video.indices) == 64
    assert video.decoded_frames <= 64 * 30
    began = time.perf_counter()
    with av.open(str(path)) as container:
        container.streams.video[0].thread_type = "AUTO"
        count = sum(1 for _ in islice(container.decode(container.streams.video[0]), 3_600))
    decoded_s = (time.perf_counter() - began) * 10
    assert (count, video.info.total_num_frames) == (3_600, 36_000)
    print(
        f"seeking {sought_s:.2f} s ({video.decoded_frames} frames decoded), decoding all {decoded_s:.2f} s, "
        f"{decoded_s / sought_s:.1f} times"
    )
    assert decoded_s >= 10 * sought_s


def test_reading_stops_at_the_last_wanted_frame(clips: dict[str, Path]) -> None:
    """One frame out of the middle of 120 costs the way from its key frame, not the rest of the group."""
    with VideoReader(open_source(clips["cfr.mp4"]), Limits()) as reader:
        index = reader.build_index()
        keys = np.flatnonzero(index.packet_is_key)
        assert len(keys) == 5
        list(reader.frames_by_seeking(index, [int(keys[2]) + 6]))
        assert reader.decoded_frames <= 6 + 1 + 4  # x264 codes up to three frames ahead of the one asked for
    assert sample_video(clips["cfr.mp4"], OFFICIAL, MediaOptions(start=2.0, end=2.0)).decoded_frames <= 24
