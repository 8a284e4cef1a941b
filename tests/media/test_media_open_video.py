"""`Video`: one index for any number of calls, and every frame the same as decoding all gives."""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from helpers_media import SMALL, decode_all, read_number
from smolvlm.errors import ParamsError, VideoError
from smolvlm.media import Limits, MediaOptions, SourcePolicy, Video, sample_video
from smolvlm.media.video_reader import VideoReader

SPANS = [(0.0, 1.0), (2.0, 3.0), (1.0, 1.5), (0.5, 0.5), (3.0, 4.5), (0.0, 4.5)]
CLIPS = ["cfr.mp4", "b_frames.mp4", "open_gop.ts", "open_gop.mkv", "vfr.mp4", "sound.mkv", "moving.gif", "h264.avi", "raw.h264"]


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """What the readers do: how often an index is read, and how many packets are taken from the demuxer."""
    done = {"indexes": 0, "decoded": 0}
    build_index, decoded = VideoReader.build_index, VideoReader._decoded

    def counted_index(self: VideoReader) -> Any:
        done["indexes"] += 1
        return build_index(self)

    def counted_group(self: VideoReader, *arguments: Any) -> Iterator[Any]:
        before = self.decoded_frames
        yield from decoded(self, *arguments)
        done["decoded"] += self.decoded_frames - before

    monkeypatch.setattr(VideoReader, "build_index", counted_index)
    monkeypatch.setattr(VideoReader, "_decoded", counted_group)
    return done


@pytest.mark.parametrize("name", CLIPS)
def test_spans_of_one_video_equal_spans_of_the_file(clips: dict[str, Path], work: dict[str, int], name: str) -> None:
    with Video(clips[name]) as video:
        last = video.duration_s
        taken = []
        for start, end in SPANS:
            options = MediaOptions(start=min(start, last - 0.5), end=end, fps=5)
            taken.append((options, video.sample(options, config=SMALL)))
        assert work["indexes"] == (0 if name == "moving.gif" else 1)
    for options, sampled in taken:
        alone = sample_video(clips[name], SMALL, options)
        assert sampled.indices == alone.indices
        assert sampled.timestamps_s == alone.timestamps_s
        assert (sampled.duration_s, sampled.info, sampled.warnings) == (alone.duration_s, alone.info, alone.warnings)
        assert np.array_equal(sampled.frames, alone.frames)


@pytest.mark.parametrize("name", CLIPS)
def test_frames_are_the_files_own(clips: dict[str, Path], name: str) -> None:
    expected, times = decode_all(clips[name])
    with Video(clips[name]) as video:
        start, end = video.duration_s / 4, video.duration_s / 2
        if name in ("h264.avi", "raw.h264"):  # their packets tell no times
            times = [i / 25 for i in range(len(expected))]
        got = list(video.frames(start, end))
        assert [f.index for f in got] == [i for i, t in enumerate(times) if start - 1e-6 <= t <= end + 1e-6]
        for frame in got:
            assert np.array_equal(frame.pixels, expected[frame.index]), frame.index
        assert len(list(video.frames())) == len(expected)


def test_frames_at_a_rate_are_those_shown_then(clips: dict[str, Path]) -> None:
    for name in ("cfr.mp4", "vfr.mp4", "ntsc.mp4"):
        _, times = decode_all(clips[name])
        with Video(clips[name]) as video:
            got = [f.index for f in video.frames(1.0, 4.0, fps=4)]
            first = min(i for i, t in enumerate(times) if t >= 1.0 - 1e-6)
            shown = [max(i for i, t in enumerate(times) if t <= 1.0 + k / 4 + 1e-6) for k in range(13)]
            assert got == sorted({max(i, first) for i in shown}), name
            assert len(list(video.frames(0.0, 1.0, fps=1e9))) == len(list(video.frames(0.0, 1.0)))


def test_small_frames(clips: dict[str, Path]) -> None:
    with Video(clips["turned_90.mp4"]) as video:
        assert video.rotation == 270  # `rotation=90` of the writer turns counter-clockwise
        frame = next(video.frames(longest_edge=64))
        assert frame.pixels.shape == (64, 48, 3)
        whole = next(video.frames()).pixels
        assert whole.shape == (128, 96, 3)
        assert np.abs(frame.pixels.astype(float) - whole.reshape(64, 2, 48, 2, 3).mean((1, 3))).mean() < 4
    with Video(clips["turned_180.mp4"]) as video:
        assert video.rotation == 180
    with Video(clips["cfr.mp4"]) as video:
        assert video.rotation == 0


@pytest.mark.parametrize(
    "name", ["cfr.mp4", "b_frames.mp4", "open_gop.mp4", "open_gop.ts", "vfr.mkv", "intra.mp4", "vp9.webm", "mpeg2.mpg"]
)
def test_key_frames_decode_nothing_else(clips: dict[str, Path], work: dict[str, int], name: str) -> None:
    with av.open(str(clips[name])) as container:
        keys = [i for i, frame in enumerate(container.decode(video=0)) if frame.key_frame]
    expected, times = decode_all(clips[name])
    with Video(clips[name]) as video:
        got = list(video.key_frames())
    assert [f.index for f in got] == keys
    assert work["decoded"] == len(keys)
    for frame in got:
        assert np.array_equal(frame.pixels, expected[frame.index])
        assert abs(frame.time_s - times[frame.index]) < 1e-6


def test_key_frames_of_a_span_and_at_a_distance(clips: dict[str, Path]) -> None:
    with Video(clips["cfr.mp4"]) as video:  # a key each 24 frames of 25 a second
        assert [f.index for f in video.key_frames(1.0, 3.0)] == [48, 72]
        assert [f.index for f in video.key_frames(every_s=1.5)] == [0, 48, 96]
        with pytest.raises(ParamsError, match="every_s"):
            next(video.key_frames(every_s=float("nan")))


def test_iterators_of_one_video_do_not_disturb_each_other(
    clips: dict[str, Path], work: dict[str, int], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "smolvlm.media")
    with Video(clips["b_frames.mp4"]) as video:
        pairs = zip(video.frames(0.0, 2.0), video.frames(2.0, 4.0), strict=True)
        for early, late in pairs:
            assert read_number(early.pixels) == early.index
            assert read_number(late.pixels) == late.index == early.index + 50
        for _ in range(3):  # given up in the middle of a group
            left = video.frames(1.0)
            assert read_number(next(left).pixels) == 25
            left.close()
            assert [read_number(f.pixels) for f in video.frames(2.0, 2.2)] == list(range(50, 56))  # the next group
            assert [read_number(f.pixels) for f in video.frames(1.2, 1.4)] == list(range(30, 36))
    assert work["indexes"] == 1
    assert caplog.text == ""  # nothing fell back to counting


def test_a_file_without_usable_times_is_counted_once(clips: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "smolvlm.media"), Video(clips["h264.avi"]) as video:
        for start in (0.6, 1.0, 1.52):
            video.sample(MediaOptions(start=start), config=SMALL)
            assert next(video.frames(start)).index == round(start * 25)
    assert caplog.text.count("decoding all of it") == 1


def test_threads(clips: dict[str, Path]) -> None:
    wrong: list[int] = []
    with Video(clips["open_gop.mp4"]) as video:

        def read(seed: int) -> None:
            for start in np.random.default_rng(seed).uniform(0, 4, 8):
                wrong.extend(f.index for f in video.frames(start, start + 0.5) if read_number(f.pixels) != f.index)

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_reads_with_decoders_of_its_own(clips: dict[str, Path]) -> None:
    with Video(clips["b_frames.mp4"]) as video:
        assert read_number(next(video.frames(1.0)).pixels) == 25  # a decoder with threads is open
        child = os.fork()
        if child == 0:
            right = [read_number(f.pixels) for f in video.frames(2.0, 3.0)] == list(range(50, 76))
            os._exit(0 if right else 1)
        assert [read_number(f.pixels) for f in video.frames(1.0, 4.0)] == list(range(25, 101))
        assert os.waitpid(child, 0)[1] == 0


def test_a_closed_video_and_limits(clips: dict[str, Path]) -> None:
    video = Video(clips["cfr.mp4"].read_bytes())
    frames = video.frames()
    next(frames)
    video.close()
    video.close()
    for call in (video.sample, lambda: next(video.frames()), lambda: next(video.key_frames())):
        with pytest.raises(VideoError, match="was closed"):
            call()
    for name in ("cfr.mp4", "moving.gif"):
        with pytest.raises(VideoError, match="more than|limit"):
            Video(clips[name], SourcePolicy(limits=Limits(max_video_pixels=9000)))
    with Video(clips["cfr.mp4"]) as opened, pytest.raises(VideoError, match="past its end"):
        next(opened.frames(start=60.0))


def test_damage_in_the_middle_leaves_times_right(clips: dict[str, Path], tmp_path: Path) -> None:
    """Zeroed packets: the index promises frames that never come. What is given carries the time of its own."""
    data = bytearray(clips["intra.mp4"].read_bytes())
    with av.open(str(clips["intra.mp4"])) as container:
        places = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    for at, size in places[10:14]:
        data[at : at + size] = bytes(size)
    path = tmp_path / "holes.mp4"
    path.write_bytes(data)
    with Video(path) as video:
        got = list(video.frames())
        again = video.sample(MediaOptions(fps=25), config=SMALL)
    assert len(got) >= 30
    assert all(b.time_s > a.time_s for a, b in itertools.pairwise(got))
    numbers = [(read_number(f.pixels), f.time_s) for f in got]
    assert all(abs(number / 25 - time_s) < 0.021 for number, time_s in numbers)
    assert len(again.frames) == len(got)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda v: v.sound(sample_rate="16000"), "sample_rate"),
        (lambda v: v.sound(sample_rate=True), "sample_rate"),
        (lambda v: v.sound(channels=3), "channels"),
        (lambda v: v.sound(start=[0]), "start"),
        (lambda v: v.frames(start="0"), "start"),
        (lambda v: v.frames(fps="1"), "fps"),
        (lambda v: v.frames(longest_edge=1.5), "longest_edge"),
        (lambda v: v.packets(kinds=()).__enter__(), "kinds"),
    ],
)
def test_wrong_arguments_are_named(clips: dict[str, Path], call: Any, sentence: str) -> None:
    with Video(clips["sound.mkv"]) as video, pytest.raises(ParamsError, match=sentence):
        call(video)
