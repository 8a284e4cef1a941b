"""Every frame that is sampled, and its time, against ffprobe's list of frames and an ffmpeg decode.

The clips hold their frames' numbers in their pixels. A dozen of them in the quick run; all of them in the slow one:
`pytest -m slow -s tests/media/test_media_video_codes.py`.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from helpers_media import SMALL
from helpers_video_codes import Truth, have_ffmpeg, read_code, truth_of
from helpers_video_set import Case, cases
from smolvlm.media import MediaOptions, SampledVideo, open_source, sample_video
from smolvlm.media.file_end import ends_early

pytestmark = pytest.mark.skipif(not have_ffmpeg(), reason="needs the ffmpeg and ffprobe commands: apt-get install ffmpeg")

SMALL = replace(SMALL, tile_size=128, video_longest_edge=256)  # the same frames, sooner shrunk
QUICK = (
    "h264b.mp4",
    "share-h264b.mp4",
    "varied-h264b.mkv",
    "share-vp9.webm",
    "varied-h264b.ts",
    "mpeg4b.avi",
    "vp9alt.mkv",
    "dropped-end-mjpeg.avi",
    "gaps-mjpeg.avi",
    "turned1-h264.mp4",
    "turned6-h264.mp4",
    "trimmed-h264b.mp4",
    "second.mkv",
    "cover.mp4",
    "late.flv",
    "interlaced.ts",
)


def _problems(path: Path, truth: Truth) -> list[str]:
    """What is wrong with the frames of a file, their times and its length; nothing if all is right."""
    everything = sample_video(path, SMALL, MediaOptions(fps=1000, max_frames=1000))
    found = (
        []
        if everything.indices == tuple(range(len(truth.codes)))
        else [f"{len(everything.indices)} frames up to {everything.indices[-1]}, not {len(truth.codes)}"]
    )
    found += _differences("all", everything, truth)
    last, duration = truth.times[-1] if truth.times else 0.0, everything.duration_s
    if not last < duration:
        found.append(f"the last frame is shown at {last}, but the video lasts {duration}")
    if truth.times and truth.duration_s and abs(duration - truth.duration_s) > truth.frame_s + 0.002:
        found.append(f"lasts {duration}, ffprobe says {truth.duration_s} and {truth.frame_s} a frame")
    if found:
        return found
    official = sample_video(path, SMALL, MediaOptions(fps=2, max_frames=7))
    count = max(min(round(2 * duration), 7), 1)
    skip = 1.0 if duration - 2 > 7 * 2 else 0.0
    total, fps = len(truth.codes), official.info.fps
    first, end = (max(0, int(skip * fps)), min(int(total - skip * fps), total - 1)) if skip else (0, total - 1)
    if first >= end:
        first, end = 0, total - 1
    if list(official.indices) != np.unique(np.linspace(first, end, min(count, 2 * total), dtype=int)).tolist():
        found.append(f"the official rule took {official.indices}")
    found += _differences("official", official, truth)
    in_time = sample_video(path, SMALL, MediaOptions(fps=2, max_frames=5, sampling="time"))
    found += _differences("time", in_time, truth)
    if truth.times:
        moments = np.linspace(0, truth.times[-1], max(min(round(2 * duration), 5), 1))
        shown = sorted({int(np.searchsorted(np.array(truth.times) - 0.0015, m, side="right")) - 1 for m in moments})
        near = [abs(a - b) <= 1 for a, b in zip(in_time.indices, shown, strict=False)]  # a moment may fall between two ticks
        if len(in_time.indices) != len(shown) or not all(near):
            found.append(f"in time: {in_time.indices}, not {shown}")
    start, stop = 0.3 * duration, 0.7 * duration
    for sampling in ("official", "time"):
        span = sample_video(path, SMALL, MediaOptions(fps=4, max_frames=4, start=start, end=stop, sampling=sampling))
        found += _differences(f"span, {sampling}", span, truth)
        inside = [i for i, t in enumerate(truth.times) if start - 0.5 * truth.frame_s <= t <= stop + 0.5 * truth.frame_s]
        shown_at = [i for i, t in enumerate(truth.times) if t <= stop][-1:]
        if truth.times and not set(span.indices) <= {*inside, *shown_at}:
            found.append(f"span {start:.3f} to {stop:.3f}, {sampling}: {span.indices} of {inside or shown_at}")
    return found


def _differences(what: str, video: SampledVideo, truth: Truth) -> list[str]:
    found = []
    for i, time, pixels in zip(video.indices, video.timestamps_s, video.frames, strict=True):
        if i >= len(truth.codes):
            found.append(f"{what}: frame {i} of {len(truth.codes)}")
        elif read_code(pixels) != truth.codes[i]:
            found.append(f"{what}: frame {i} shows {read_code(pixels)}, not {truth.codes[i]}")
        # A constant rate has the reference's `index / fps`; ticks of some containers are coarse.
        elif truth.times and abs(time - truth.times[i]) > (0.002 if video.info.variable_frame_rate else 0.5 / video.info.fps):
            found.append(f"{what}: frame {i} at {time}, not {truth.times[i]}")
    return found[:3]


def _check(case: Case, folder: Path) -> list[str]:
    truth = truth_of(case.make(folder), case.stream)
    readable = sum(code is not None for code in truth.codes)
    assert readable >= 0.9 * len(truth.codes) > 0, f"{case.name}: ffmpeg itself shows {readable} of {len(truth.codes)} codes"
    early = ends_early(open_source(folder / case.name))  # all of it is there
    return [*_problems(folder / case.name, truth), *([f"said to end early: {early}"] if early is not None else [])]


@pytest.mark.parametrize("name", QUICK)
def test_a_representative_file(name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    case = next(case for case in cases() if case.name == name)
    assert _check(case, tmp_path_factory.mktemp("codes")) == []


@pytest.mark.slow
def test_all_files(tmp_path: Path) -> None:
    wrong: dict[str, list[str]] = {}
    for case in cases():
        try:
            problems = _check(case, tmp_path)
        except Exception as error:
            problems = [f"{type(error).__name__}: {error}"]
        if problems:
            wrong[case.name] = problems
    lines = [f"{name}: {'; '.join(problems)}" for name, problems in wrong.items()]
    print(f"\n{len(cases()) - len(wrong)} of {len(cases())} video files: every sampled frame and time right")
    assert not wrong, "\n".join(lines)
    assert len(cases()) >= 150
