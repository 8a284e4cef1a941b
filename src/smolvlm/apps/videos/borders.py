"""Where a moment that will be cut begins and ends exactly: at the border of a shot, if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec

from smolvlm.apps.videos.highlights_choice import Candidate
from smolvlm.errors import VideoError
from smolvlm.media import ShotDetector, Video, VideoFrame

_AROUND_S = 0.6  # frames beside the border, which detectors compare with


def exact_borders(video: Video, chosen: Sequence[Candidate], every_s: float) -> tuple[list[Candidate], list[str]]:
    """The moments with their borders moved to a cut of the shot that lies within a step of them; notes on what could not be read."""
    found: list[Candidate] = []
    notes: list[str] = []
    for candidate in chosen:
        try:
            start, end = (_nearest_cut(video, at, every_s) for at in (candidate.start_s, candidate.end_s))
        except VideoError as error:
            notes.append(f"the borders at {candidate.start_s:.1f} s were not refined: {error}")
            start, end = candidate.start_s, candidate.end_s
        if found and start < found[-1].end_s:
            start = found[-1].end_s
        if end > start:
            found.append(replace(candidate, start_s=start, end_s=end))
    return found, notes


def _nearest_cut(video: Video, at_s: float, every_s: float) -> float:
    """The cut in the step before `at_s`, where a frame a step apart first saw the new shot; else `at_s`."""
    if at_s <= 0 or at_s >= video.duration_s:
        return at_s
    begin, end = max(at_s - every_s - _AROUND_S, 0.0), min(at_s + _AROUND_S, video.duration_s)
    cuts = [shot.start_s for shot in video.shots(begin, end, detector=detector())[1:]]
    near = [cut for cut in cuts if at_s - every_s - 1e-3 <= cut <= at_s + 1e-3]
    return max(near, default=at_s)


def detector() -> ShotDetector | None:
    """PySceneDetect's, where `smolvlm[video]` is installed; else None, the built-in one of hard cuts."""
    return _content if find_spec("scenedetect") is not None else None


def _content(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    from scenedetect import ContentDetector, FrameTimecode

    finds, seen = ContentDetector(min_scene_len=2), {}
    for count, frame in enumerate(frames):
        seen[count] = frame
        for cut in finds.process_frame(FrameTimecode(count, 25.0), frame.pixels[:, :, ::-1]):
            yield seen[cut.frame_num]
