"""What `Video` passes on beside frames: streams, sound, packets for tools that cut, shots; against ffprobe, ffmpeg and hand-made cuts."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from helpers_media import decode_all, numbered_frame, read_number
from smolvlm.errors import ParamsError, SmolVLMError, VideoError
from smolvlm.media import CutDetector, Shot, Video, VideoFrame


@pytest.fixture(scope="module")
def melody(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Five seconds with a tone that rises each second: 400 Hz, 500 Hz, ..."""
    folder = tmp_path_factory.mktemp("melody")
    found = {}
    for name, codec in (("melody.mp4", "aac"), ("melody.mkv", "libopus"), ("melody.ts", "aac")):
        with av.open(str(folder / name), "w") as out:
            video = out.add_stream("libx264", rate=25, options={"g": "24", "bf": "2", "preset": "veryfast"})
            video.width, video.height, video.pix_fmt = 128, 96, "yuv420p"
            audio = out.add_stream(codec, rate=48000, layout="stereo")
            audio.metadata["language"] = "deu"
            resampler = av.AudioResampler(audio.format, audio.layout, audio.rate)
            for i in range(125):
                picture = av.VideoFrame.from_ndarray(numbered_frame(i), "rgb24")
                picture.pts, picture.time_base = i, Fraction(1, 25)
                out.mux(video.encode(picture))
                at = (np.arange(1920) + i * 1920) / 48000
                tone = 0.5 * np.sin(2 * np.pi * (400 + 100 * np.floor(at)) * at)
                sound = av.AudioFrame.from_ndarray(np.repeat(tone, 2).astype(np.float32)[None], "flt", layout="stereo")
                sound.sample_rate, sound.pts = 48000, i * 1920
                for part in resampler.resample(sound):
                    out.mux(audio.encode(part))
            for part in resampler.resample(None):
                out.mux(audio.encode(part))
            out.mux(video.encode(None))
            out.mux(audio.encode(None))
        found[name] = folder / name
    return found


def _pitch(samples: np.ndarray[Any, Any], rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate / len(samples))


@pytest.mark.parametrize("name", ["melody.mp4", "melody.mkv", "melody.ts"])
def test_sound_of_a_span_is_that_moments(melody: dict[str, Path], name: str) -> None:
    with Video(melody[name]) as video:
        assert video.has_sound
        for start, end, rate, channels in ((1.2, 1.8, 16000, 1), (3.1, 3.9, 44100, 2), (0.0, 0.5, 8000, 1)):
            blocks = list(video.sound(start, end, sample_rate=rate, channels=channels))
            samples = np.concatenate([block.samples for block in blocks])
            assert samples.shape == (len(samples), channels)
            first_s = blocks[0].time_s
            assert first_s == pytest.approx(start, abs=0.03 if start == 0 else 1.5 / rate)
            assert len(samples) == pytest.approx((end - first_s) * rate, abs=64)
            ends = [block.time_s + len(block.samples) / rate for block in blocks]
            assert np.abs(np.array(ends[:-1]) - [block.time_s for block in blocks[1:]]).max(initial=0) < 1e-3  # Matroska's clock
            assert _pitch(samples[:, 0], rate) == pytest.approx(400 + 100 * int(start), abs=4)
        with pytest.raises(ParamsError, match="channels=3"):
            video.sound(channels=3)


def test_sound_equals_ffmpegs(melody: dict[str, Path]) -> None:
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        pytest.skip("the ffmpeg program is not installed")
    command = [ffmpeg, "-v", "error", "-i", str(melody["melody.mp4"]), "-af", "atrim=2:4", "-ac", "1", "-ar", "16000", "-f", "f32le", "-"]
    wanted = np.frombuffer(subprocess.run(command, check=True, capture_output=True).stdout, np.float32)
    with Video(melody["melody.mp4"]) as video:
        got = np.concatenate([block.samples[:, 0] for block in video.sound(2, 4)])
    size = min(len(wanted), len(got)) - 200
    assert size > 31_000
    slope = 0.7071 * 2 * np.pi * 700 / 16000  # the most that the tones change in one sample
    assert np.abs(wanted[100:size] - got[100:size]).max() < slope / 2


def test_no_sound(clips: dict[str, Path]) -> None:
    for name in ("cfr.mp4", "moving.gif"):
        with Video(clips[name]) as video:
            assert not video.has_sound
            with pytest.raises(VideoError, match="has no sound"):
                video.sound()


def test_streams_are_ffprobes(melody: dict[str, Path], clips: dict[str, Path]) -> None:
    ffprobe = shutil.which("ffprobe")
    if ffprobe is None:
        pytest.skip("the ffprobe program is not installed")
    for path in (*melody.values(), clips["sound.ts"], clips["vp9.webm"]):
        command = [ffprobe, "-v", "error", "-show_streams", "-of", "json", str(path)]
        wanted = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)["streams"]
        with Video(path) as video:
            got = video.streams
        assert [(s.index, s.kind, s.sample_rate, s.channels, s.language, s.default) for s in got] == [
            (
                w["index"],
                w["codec_type"],
                int(w.get("sample_rate", 0)),
                w.get("channels", 0),
                None if (tag := w.get("tags", {}).get("language", "und")) == "und" else tag,
                bool(w["disposition"]["default"]),
            )
            for w in wanted
        ]
        assert got[0].duration_s is None or got[0].duration_s == pytest.approx(
            float(wanted[0].get("duration", got[0].duration_s)), abs=1e-3
        )


def _remuxed(video: Video, start: float, end: float, path: Path) -> float:
    with video.packets(start, end) as span, av.open(str(path), "w") as out:
        copies = {stream.index: out.add_stream_from_template(stream) for stream in span.streams}
        for packet in span:
            packet.stream = copies[packet.stream.index]
            out.mux(packet)
        return span.start_s


@pytest.mark.parametrize("name", ["melody.mp4", "melody.mkv", "melody.ts"])
def test_packets_of_a_span_hold_its_frames_and_sound(melody: dict[str, Path], tmp_path: Path, name: str) -> None:
    with Video(melody[name]) as video:
        for start, end in ((1.5, 2.5), (0.0, 1.0), (3.0, 3.0), (4.0, 60.0)):
            cut = tmp_path / f"cut-{start}.mkv"
            from_s = _remuxed(video, start, min(end, video.duration_s), cut)
            key = max(i for i in range(0, 125, 24) if i / 25 <= start + 1e-6)
            assert from_s == pytest.approx(key / 25)
            numbers = sorted(read_number(frame) for frame in decode_all(cut)[0])
            last = min(int(end * 25 + 1e-6), 124)
            assert numbers[: last - key + 1] == list(range(key, last + 1))
            assert len(numbers) <= last - key + 1 + 3  # what the last frames refer to
            with Video(cut) as copied:
                length_s = (last + 1 - key) / 25
                sound = np.concatenate([block.samples for block in copied.sound()])
                assert len(sound) / 16000 == pytest.approx(length_s, abs=0.08)
                if length_s > 0.5:
                    assert _pitch(sound[1600:8000, 0], 16000) == pytest.approx(400 + 100 * int(key / 25 + 0.35), abs=60)


def test_packets_need_timestamps(clips: dict[str, Path]) -> None:
    with Video(clips["raw.h264"]) as video, pytest.raises(VideoError, match="no usable timestamps"), video.packets():
        pass
    with Video(clips["cfr.mp4"]) as video, pytest.raises(ParamsError, match="'sound'"), video.packets(kinds=("sound",)):
        pass


def _scenes(path: Path, cuts: list[int], count: int, flashes: tuple[int, ...] = ()) -> Path:
    """Noisy scenes that pan, with hard cuts before the frames `cuts`; a flash turns one frame white."""
    rng = np.random.default_rng(5)
    scenes = [np.kron(rng.integers(0, 256, (12, 30, 3)), np.ones((16, 16, 1))).astype(np.uint8) for _ in range(len(cuts) + 1)]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=25, options={"preset": "veryfast", "crf": "20"})
        stream.width, stream.height, stream.pix_fmt = 320, 180, "yuv420p"
        for i in range(count):
            scene = scenes[sum(i >= cut for cut in cuts)]
            pixels = scene[:180, abs(i % 118 - 59) :][:, :320] // 2 + rng.integers(0, 40, (180, 320, 1), np.uint8)
            if i in flashes:
                pixels[:] = 255
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return path


def test_shots_are_where_the_cuts_were_made(tmp_path: Path) -> None:
    cuts = [30, 75, 140, 160]
    path = _scenes(tmp_path / "cuts.mp4", cuts, 200, flashes=(50, 110, 111))
    with Video(path) as video:
        shots = video.shots()
        assert [round(shot.start_s * 25) for shot in shots] == [0, *cuts]
        assert [round(shot.end_s * 25) for shot in shots] == [*cuts, 200]
        assert [round(shot.start_s * 25) for shot in video.shots(2.0, 6.0)] == [50, 75, 140]
        assert video.shots(detector=CutDetector(threshold=255)) == [Shot(0.0, 8.0)]
        assert [round(shot.start_s * 25) for shot in video.shots(detector=CutDetector(min_shot_s=1.0))] == [0, 30, 75, 140]


def test_a_detector_of_ones_own(clips: dict[str, Path]) -> None:
    seen: list[tuple[int, ...]] = []

    def each_second(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            seen.append(frame.pixels.shape)
            if frame.index % 25 == 0:
                yield frame

    with Video(clips["cfr.mp4"]) as video:
        shots = video.shots(detector=each_second)
    assert shots == [Shot(0.0, 1.0), Shot(1.0, 2.0), Shot(2.0, 3.0), Shot(3.0, 4.0), Shot(4.0, 4.8)]
    assert set(seen) == {(48, 64, 3)}
    assert len(seen) == 120


def test_a_still_and_a_single_frame_are_one_shot(tmp_path: Path) -> None:
    for count in (1, 3, 10):
        path = _scenes(tmp_path / f"{count}.mp4", [], count)
        with Video(path) as video:
            assert video.shots() == [Shot(0.0, count / 25)]
    with pytest.raises(ParamsError, match="ratio"):
        CutDetector(ratio=-1)


@pytest.mark.parametrize("name", ["melody.mp4", "melody.mkv", "melody.ts"])
def test_damaged_files_end_in_one_sentence(melody: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Bytes anywhere: what can be read is given, and nothing but our own errors is raised."""
    data, rng = melody[name].read_bytes(), np.random.default_rng(1)
    read = 0
    for _ in range(25):
        broken = bytearray(data)
        for at in rng.integers(0, len(data), 6):
            broken[at] = rng.integers(0, 256)
        if rng.random() < 0.3:
            broken = broken[: int(rng.integers(len(data) // 2, len(data)))]
        path = tmp_path / name
        path.write_bytes(broken)
        with contextlib.suppress(SmolVLMError), Video(path) as video:
            assert len(video.streams) >= 1
            for call in (
                lambda video=video: [*video.key_frames(longest_edge=32)],
                lambda video=video: [*video.frames(1.0, 2.0, fps=5)],
                lambda video=video: [*video.sound(1.0, 2.0)],
                lambda video=video: _all_packets(video),
                lambda video=video: video.shots(0.0, 1.0),
            ):
                with contextlib.suppress(SmolVLMError):
                    read += len(call())
    assert read > 500


def _all_packets(video: Video) -> list[Any]:
    with video.packets(1.0, 3.0) as span:
        return list(span)
