"""A video -> the few square frames that the model sees, with their times.

Sources: `SmolVLMVideoProcessor` and `read_video_pyav` of `transformers`; `video_sampling` of the official
`preprocessor_config.json`.
Frames are found by seeking and shrunk one by one: memory holds one frame at full size, whatever the video's length.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import Image

from smolvlm.config import ProcessorConfig
from smolvlm.errors import SmolVLMError, VideoError
from smolvlm.media.animation import AnimationReader, animated_format
from smolvlm.media.arrays import is_array_like
from smolvlm.media.frame_list import FrameList
from smolvlm.media.heif import is_sequence
from smolvlm.media.kinds import picture_format
from smolvlm.media.labels import one_line
from smolvlm.media.mp4_boxes import check_sample_counts
from smolvlm.media.options import MediaOptions
from smolvlm.media.sources import Source, SourceLike, SourcePolicy, open_source
from smolvlm.media.tiling import MAX_EDGE_PX, resize_to_longest_edge
from smolvlm.media.timeline import Timeline
from smolvlm.media.tone_map import left_as_stored
from smolvlm.media.video_reader import SeekMismatch, VideoReader

logger = logging.getLogger(__name__)

VideoLike: TypeAlias = "SourceLike | Sequence[Any] | np.ndarray[Any, Any]"
OnFrame: TypeAlias = Callable[[int, int], None]
Pixels: TypeAlias = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class VideoInfo:
    """What is known about a whole video. `fps` in frames a second, sizes in pixels as stored, before rotation.

    For MP4 these are the reference's `VideoMetadata`: frames by the header, the average rate, and their quotient as the
    duration. Where a container does not say, they are measured from its packets.
    """

    total_num_frames: int
    fps: float
    duration_s: float
    width: int
    height: int
    codec: str
    variable_frame_rate: bool


@dataclass(frozen=True, eq=False)
class SampledVideo:
    """The sampled frames: uint8 (frames, side, side, 3), upright; `timestamps_s` and `indices` have one entry a frame.

    `duration_s` is the whole video's, which the prompt states also when only a span was sampled. `decoded_frames`
    counts what the decoder produced for them; 0 for a list of frames. `warnings` are sentences for whoever asked: what a
    look at the video alone would not lead one to expect.
    """

    frames: Pixels
    timestamps_s: tuple[float, ...]
    duration_s: float
    indices: tuple[int, ...]
    info: VideoInfo
    decoded_frames: int
    warnings: tuple[str, ...] = ()


def sample_video(
    source: VideoLike,
    config: ProcessorConfig,
    options: MediaOptions | None = None,
    policy: SourcePolicy | None = None,
    on_frame: OnFrame | None = None,
) -> SampledVideo:
    """Sample a video file, URL, bytes, or a list of frames (pictures, arrays, paths; or an array (T, H, W, 3)).

    Which frames: the reference's rule with `options.fps` and `options.max_frames` over the checkpoint's; inside
    `start`..`end` seconds when given, or the one that is shown between them. Times are `index / fps` as in the
    reference, and for variable frame rates the real time since the first frame. `on_frame(done, total)` is called after each frame.

    A list of frames is taken whole up to `max_frames`, else evenly spread; its rate is `options.fps` or 24, as the
    reference assumes, and its duration is the last frame's time.

    Raises SourceError for what cannot be opened, VideoError for what is no video, is damaged before a sampled frame,
    or ends before the asked span; ImageError for a listed frame that is no picture.
    """
    options, policy = options or MediaOptions(), policy or SourcePolicy()
    if is_array_like(source) or isinstance(source, list | tuple):
        return _sample_list(FrameList(source, options, policy), config, options, on_frame)
    if isinstance(source, Source):
        return _sample_file(source, config, options, policy, on_frame)
    with open_source(cast(SourceLike, source), policy) as opened:
        return _sample_file(opened, config, options, policy, on_frame)


def probe_video(source: SourceLike, policy: SourcePolicy | None = None) -> VideoInfo:
    """What is known about a video file without decoding it. Raises as `sample_video` does."""
    policy = policy or SourcePolicy()
    opened = open_source(source, policy)
    try:
        if animated_format(opened):
            with AnimationReader(opened, policy.limits, MediaOptions()) as animation:
                return _info(animation, _animation_timeline(animation))
        with _reader(opened, policy) as reader:
            return _info(reader, Timeline.of(reader, reader.build_index()))
    finally:
        if opened is not source:
            opened.close()


def square_frame(pixels: Pixels, config: ProcessorConfig) -> Pixels:
    """uint8 (height, width, 3) -> (side, side, 3): longest edge to `video_longest_edge`, then squashed to a tile."""
    resample = Image.Resampling(config.resample)
    height, width, _ = pixels.shape
    height, width = resize_to_longest_edge(height, width, min(config.video_longest_edge, MAX_EDGE_PX))
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize((width, height), resample=resample)
    return np.asarray(image.resize((config.tile_size, config.tile_size), resample=resample))


def _reader(source: Source, policy: SourcePolicy) -> VideoReader:
    kind = picture_format(source.head(64))
    if kind is not None and not is_sequence(source.head(12)):
        raise VideoError(f"{source.label} is a picture ({kind}), not a video; pass it as an image, or several as a list.")
    check_sample_counts(source)
    return VideoReader(source, policy.limits)


def _sample_file(
    source: Source, config: ProcessorConfig, options: MediaOptions, policy: SourcePolicy, on_frame: OnFrame | None
) -> SampledVideo:
    try:
        if animated_format(source):
            return _sample_animation(source, config, options, policy, on_frame)
        with _reader(source, policy) as reader:
            timeline = Timeline.of(reader, reader.build_index())
            wanted = timeline.choose(config, options)
            pictures = _Pictures(reader, config, options, on_frame)
            frames: dict[int, Pixels] = {}
            if timeline.index.has_timestamps:
                try:
                    sought = reader.frames_by_seeking(timeline.index, wanted)
                    frames = pictures.collect(sought, wanted)
                except SeekMismatch:  # damaged packets, or hidden ones: only decoding tells which frames there are
                    logger.info("%s: its timestamps do not name its frames; decoding all of it", source.label)
                    frames, timeline = {}, timeline.counted(reader.frame_times())
                    wanted = timeline.choose(config, options)
            if not frames:
                frames = pictures.collect(reader.frames_from_start(wanted[-1] + 1), wanted)
            if len(frames) < len(wanted):  # no timestamps, and fewer frames than packets: now they are counted
                timeline = timeline.counted(reader.frame_times())
                wanted = timeline.choose(config, options)
                frames = pictures.collect(reader.frames_from_start(wanted[-1] + 1), wanted)
            return SampledVideo(
                np.stack([frames[i] for i in wanted]),
                timeline.times(wanted),
                timeline.duration_s,
                tuple(wanted),
                _info(reader, timeline),
                reader.decoded_frames,
                (*pictures.warnings, *timeline.warnings(options, wanted)),
            )
    except SmolVLMError:
        raise
    except Exception as error:  # whatever libav and PyAV raise on hostile files
        logger.debug("%s: reading failed", source.label, exc_info=True)
        raise VideoError(f"{source.label}: the video is damaged ({one_line(error)}); re-encode or download it again.") from None


def _sample_animation(
    source: Source, config: ProcessorConfig, options: MediaOptions, policy: SourcePolicy, on_frame: OnFrame | None
) -> SampledVideo:
    with AnimationReader(source, policy.limits, options) as reader:
        timeline = _animation_timeline(reader)
        wanted = timeline.choose(config, options)
        frames: dict[int, Pixels] = {}
        for i, pixels in reader.frames(wanted):
            frames[i] = square_frame(pixels, config)
            if on_frame is not None:
                on_frame(len(frames), len(wanted))
        if len(frames) < len(wanted):
            timeline = replace(timeline, available=reader.frames_there())
            timeline.choose(config, options)  # says how much is there
        return SampledVideo(
            np.stack([frames[i] for i in wanted]),
            timeline.times(wanted),
            timeline.duration_s,
            tuple(wanted),
            _info(reader, timeline),
            reader.decoded_frames,
            tuple(timeline.warnings(options, wanted)),
        )


def _animation_timeline(reader: AnimationReader) -> Timeline:
    timeline = Timeline.of_times(reader.source.label, reader.seconds, reader.duration_s, reader.stated_frames)
    return replace(timeline, ends_early=reader.ends_early, is_joined=reader.is_joined)


class _Pictures:
    """Shrinks the wanted frames as they come, and keeps in mind what their colors are."""

    def __init__(self, reader: VideoReader, config: ProcessorConfig, options: MediaOptions, on_frame: OnFrame | None) -> None:
        self._reader, self._config, self._on_frame = reader, config, on_frame
        self._maps = options.tone_map == "auto"
        self.warnings: list[str] = []

    def collect(self, found: Iterator[tuple[int, Any]], wanted: Sequence[int]) -> dict[int, Pixels]:
        """The square frames by number; one that never came is not there."""
        missing = set(wanted)
        frames: dict[int, Pixels] = {}
        for i, frame in found:
            if i not in missing:
                continue
            tags = self._reader.tags(frame)
            if tags.name is not None and not self._maps and not self.warnings:
                self.warnings.append(left_as_stored(tags))
            pixels = self._reader.rgb(frame, tags if self._maps else None, self._config.video_longest_edge)
            frames[i] = square_frame(pixels, self._config)
            missing.remove(i)
            if self._on_frame is not None:
                self._on_frame(len(frames), len(wanted))
        return frames


def _info(reader: VideoReader | AnimationReader, timeline: Timeline) -> VideoInfo:
    width, height = reader.size
    return VideoInfo(timeline.total_num_frames, timeline.fps, timeline.duration_s, width, height, reader.codec, timeline.variable)


def _sample_list(items: FrameList, config: ProcessorConfig, options: MediaOptions, on_frame: OnFrame | None) -> SampledVideo:
    wanted = items.choose(config, options)
    frames: list[Pixels] = []
    sizes: list[tuple[int, int]] = []
    for pixels in items.pixels(wanted):
        sizes.append((pixels.shape[1], pixels.shape[0]))
        frames.append(square_frame(pixels, config))
        if on_frame is not None:
            on_frame(len(frames), len(wanted))
    info = VideoInfo(len(items), items.fps, items.duration_s, *sizes[0], "frames", False)
    times = tuple(i / items.fps for i in wanted)
    return SampledVideo(np.stack(frames), times, items.duration_s, tuple(wanted), info, 0)
