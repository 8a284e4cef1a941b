"""Frame i is the i-th frame: seeking against decoding everything, for every kind of file that makes it hard."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from helpers_media import SMALL, decode_all, read_number
from smolvlm.media import Limits, MediaOptions, open_source, sample_video
from smolvlm.media.timeline import Timeline
from smolvlm.media.video import square_frame
from smolvlm.media.video_reader import SeekMismatch, VideoReader

STRAIGHT = [
    "cfr.mp4",
    "b_frames.mp4",
    "open_gop.mp4",
    "open_gop.ts",
    "open_gop.mkv",
    "open_gop_hevc.mp4",
    "intra.mp4",
    "one_gop.mp4",
    "fragmented.mp4",
    "sound.mp4",
    "sound.mkv",
    "sound.ts",
    "vfr.mp4",
    "vfr.mkv",
    "ntsc.mp4",
    "vp9.webm",
    "mpeg2.mpg",
    "mjpeg.mov",
    "flash.flv",
    "windows.wmv",
    "moving.gif",
    "single.mp4",
    "vp8.webm",
    "mpeg4.avi",
]
BY_COUNTING = ["h264.avi", "raw.h264"]  # no timestamps to find frames by: the reader must notice


@pytest.mark.parametrize("name", STRAIGHT)
def test_seeking_gives_the_same_frames_as_decoding_all(clips: dict[str, Path], name: str) -> None:
    expected, times = decode_all(clips[name])
    numbers = [read_number(frame) for frame in expected]
    assert numbers == list(range(len(expected))) or name == "moving.gif", "the reference itself is in order"
    rng = np.random.default_rng(3)
    wanted = sorted({0, len(expected) - 1, *rng.integers(0, len(expected), 14).tolist()})
    with VideoReader(open_source(clips[name]), Limits()) as reader:
        index = reader.build_index()
        assert index.num_frames == len(expected)
        assert np.abs(index.frame_seconds() - times).max() < 1e-9
        got = {i: reader.rgb(frame).copy() for i, frame in reader.frames_by_seeking(index, wanted)}
    assert sorted(got) == wanted
    for i in wanted:
        assert np.array_equal(got[i], expected[i]), (name, i)


@pytest.mark.parametrize("name", STRAIGHT + BY_COUNTING)
def test_sampled_frames_are_the_files_own(clips: dict[str, Path], name: str) -> None:
    expected, times = decode_all(clips[name])
    video = sample_video(clips[name], SMALL, MediaOptions(fps=3))
    assert list(video.indices) == sorted(set(video.indices))
    assert video.indices[-1] == len(expected) - 1 or len(video.indices) == 1
    for i, frame, time in zip(video.indices, video.frames, video.timestamps_s, strict=True):
        assert np.array_equal(frame, square_frame(expected[i], SMALL)), (name, i)
        assert abs(time - times[i]) < 0.021 or name in BY_COUNTING, (name, i)  # half a frame, where the rate is constant


@pytest.mark.parametrize("name", BY_COUNTING)
def test_files_that_cannot_be_sought_are_noticed(clips: dict[str, Path], name: str) -> None:
    with VideoReader(open_source(clips[name]), Limits()) as reader:
        index = reader.build_index()
        if index.has_timestamps:
            with pytest.raises(SeekMismatch):
                list(reader.frames_by_seeking(index, range(0, index.num_frames, 3)))


@pytest.mark.parametrize("name", ["cfr.mp4", "b_frames.mp4", "open_gop.mp4", "vfr.mkv", "sound.ts"])
def test_each_frame_costs_at_most_its_group(clips: dict[str, Path], name: str) -> None:
    with VideoReader(open_source(clips[name]), Limits()) as reader:
        index = reader.build_index()
        longest = int(np.diff([*np.flatnonzero(index.packet_is_key), len(index.packet_pts)]).max())
        for wanted in ([5], [47], [5, 90], [46, 47, 48, 49], list(range(0, 119, 7))):
            before = reader.decoded_frames
            assert len(list(reader.frames_by_seeking(index, wanted))) == len(wanted)
            cost = reader.decoded_frames - before
            groups = {index.key_before(int(index.frame_pts[i])) for i in wanted}
            assert cost <= len(groups) * (longest + 3), (wanted, cost)  # 3: leading frames of an open group
            assert cost < 120 or len(groups) > 4


def test_a_lying_index_is_noticed_and_counted(clips: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If seeking lands beside its key frames, or frames go missing, the result still holds the right frames."""
    expected, _ = decode_all(clips["b_frames.mp4"])
    original = VideoReader._decode_group

    def wrong(self, index, key, targets):  # type: ignore[no-untyped-def]
        frames = list(original(self, index, key, targets))
        yield from frames
        raise SeekMismatch

    monkeypatch.setattr(VideoReader, "_decode_group", wrong)
    video = sample_video(clips["b_frames.mp4"], SMALL)
    assert [read_number(expected[i]) for i in video.indices] == list(video.indices)
    for i, frame in zip(video.indices, video.frames, strict=True):
        assert np.array_equal(frame, square_frame(expected[i], SMALL))


def _remux(source: Path, target: Path, change) -> Path:  # type: ignore[no-untyped-def]
    with av.open(str(source)) as inside, av.open(str(target), "w") as out:
        stream = out.add_stream_from_template(inside.streams.video[0])
        for n, packet in enumerate(inside.demux(inside.streams.video[0])):
            if packet.size and change(n, packet):
                packet.stream = stream
                out.mux(packet)
    return target


def test_missing_frames_in_the_middle(clips: dict[str, Path], tmp_path: Path) -> None:
    """Packets that nothing refers to are dropped: the numbering moves up, the times keep the gap."""
    path = _remux(clips["intra.mp4"], tmp_path / "gap.mkv", lambda n, _: not 10 <= n < 20)
    expected, times = decode_all(path)
    assert len(expected) == 30
    video = sample_video(path, SMALL, MediaOptions(fps=8))
    for i, frame, time in zip(video.indices, video.frames, video.timestamps_s, strict=True):
        assert np.array_equal(frame, square_frame(expected[i], SMALL))
        assert abs(time - times[i]) < 1e-9
    assert video.info.variable_frame_rate


def test_start_in_the_middle_of_an_open_group(clips: dict[str, Path], tmp_path: Path) -> None:
    """A recording cut at a key frame of an open group: its leading frames cannot be decoded and do not count."""
    keys: list[int] = []

    def later(n: int, packet: av.Packet) -> bool:
        keys.extend([n] if packet.is_keyframe and n else [])
        return bool(keys)

    path = _remux(clips["open_gop.ts"], tmp_path / "cut.ts", later)
    expected, _ = decode_all(path)
    video = sample_video(path, SMALL, MediaOptions(fps=4))
    assert video.indices[0] == 0
    for i, frame in zip(video.indices, video.frames, strict=True):
        assert np.array_equal(frame, square_frame(expected[i], SMALL)), i


def test_edit_list_hides_the_frames_before_it(clips: dict[str, Path], tmp_path: Path) -> None:
    """A trimmed MP4 keeps hidden frames for decoding; they are decoded, never shown and never counted."""
    path = tmp_path / "trimmed.mp4"
    with av.open(str(clips["cfr.mp4"])) as inside, av.open(str(path), "w") as out:
        source = inside.streams.video[0]
        stream = out.add_stream_from_template(source)
        shift = int(Fraction(2, 5) / source.time_base)  # 10 frames before zero become an edit list
        for packet in inside.demux(source):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                out.mux(packet)
    expected, _ = decode_all(path)
    assert read_number(expected[0]) == 10
    assert len(expected) == 110
    video = sample_video(path, SMALL, MediaOptions(fps=5))
    assert video.info.total_num_frames == 110
    for i, frame in zip(video.indices, video.frames, strict=True):
        assert np.array_equal(frame, square_frame(expected[i], SMALL)), i


@pytest.mark.parametrize(("name", "turns"), [("turned_90.mp4", 1), ("turned_180.mp4", 2), ("turned_270.mp4", 3)])
def test_rotation_is_applied(clips: dict[str, Path], name: str, turns: int) -> None:
    """`rotation=90` turns counter-clockwise, as libav's display matrix says."""
    stored, _ = decode_all(clips[name])
    video = sample_video(clips[name], SMALL)
    for i, frame in zip(video.indices, video.frames, strict=True):
        assert np.array_equal(frame, square_frame(np.rot90(stored[i], turns), SMALL))


def test_missing_duration_and_count(clips: dict[str, Path]) -> None:
    """Matroska and MPEG-TS name no frame count; the packets do."""
    for name in ("open_gop.mkv", "open_gop.ts", "sound.mkv"):
        info = sample_video(clips[name], SMALL).info
        assert (info.total_num_frames, info.fps, info.duration_s) == (120, 25.0, 4.8), name


def test_variable_rate_times(clips: dict[str, Path]) -> None:
    _, times = decode_all(clips["vfr.mp4"])
    with VideoReader(open_source(clips["vfr.mp4"]), Limits()) as reader:
        timeline = Timeline.of(reader, reader.build_index())
    assert timeline.variable
    assert timeline.times([0, 50, 100]) == (times[0], times[50], times[100])
    video = sample_video(clips["vfr.mp4"], SMALL, MediaOptions(start=3.0, end=5.0))
    assert all(3.0 <= t <= 5.0 for t in video.timestamps_s)
    assert video.timestamps_s == tuple(times[i] for i in video.indices)
