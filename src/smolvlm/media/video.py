"""A video -> the few square frames that the model sees, with their times; and `Video`, a file that stays open.

Sources: `SmolVLMVideoProcessor` and `read_video_pyav` of `transformers`; `video_sampling` of the official
`preprocessor_config.json`.
Frames are found by seeking and shrunk one by one: memory holds one frame at full size, whatever the video's length.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, TypeAlias, cast

import numpy as np

from smolvlm.config import ProcessorConfig
from smolvlm.errors import VideoError
from smolvlm.media.animation import animated_format
from smolvlm.media.arrays import is_array_like
from smolvlm.media.container import StreamInfo, open_container
from smolvlm.media.frame_list import FrameList
from smolvlm.media.heif import is_sequence
from smolvlm.media.kinds import picture_format
from smolvlm.media.mp4_boxes import check_sample_counts
from smolvlm.media.sampled_video import OnFrame, Pixels, SampledVideo, VideoFrame, VideoInfo, square_frame
from smolvlm.media.shots import SMALL_PX, CutDetector, Shot, ShotDetector, find_shots
from smolvlm.media.sources import Source, SourceLike, SourcePolicy, open_source
from smolvlm.media.timeline import Timeline
from smolvlm.media.video_file import AnimationFile, Choose, Frames, VideoFile
from smolvlm.media.video_index import FrameIndex
from smolvlm.media.video_packets import PacketSpan, SoundBlock, packet_span, sound_of
from smolvlm.media.video_pixels import turn_of
from smolvlm.media.video_subtitles import SubtitleText, subtitles_in
from smolvlm.options.declare import Option, Range, checked
from smolvlm.options.media import MediaOptions

VideoLike: TypeAlias = "SourceLike | Video | Sequence[Any] | np.ndarray[Any, Any]"


_EVERY_S = Option("Seconds between two key frames.", Range(0), name="every_s", kind=float)
_SAMPLE_RATE = Option("Samples a second.", Range(1000, 384_000), name="sample_rate", kind=int)
_CHANNELS = Option("Channels of the sound.", Range(1, 2), name="channels", kind=int)


class Video:
    """A video file that is opened once: its index is read here, and every later call finds its frames by it.

    Accepted wherever a video is: `vlm.ask(video, "...", start=60, end=70)`. Times are seconds from the first frame. Memory
    holds the index (about 35 bytes a frame) and one frame a running call. A context manager; any thread may call it, and
    calls that run at the same time have a decoder each. `policy` holds for this source, whatever the verb's own says.

    Raises SourceError for what cannot be opened, VideoError for what is no video, is damaged, or is beyond the limits.
    """

    def __init__(self, source: SourceLike, policy: SourcePolicy | None = None) -> None:
        policy = policy or SourcePolicy()
        self.source = open_source(source, policy)
        self._owned = self.source is not source
        self._closed = False
        self._limits = policy.limits
        self._streams: tuple[StreamInfo, ...] | None = None
        try:
            self._file = _open_file(self.source, policy)
        except BaseException:
            self._release()
            raise

    @property
    def label(self) -> str:
        """A short name for messages."""
        return self.source.label

    @property
    def info(self) -> VideoInfo:
        """Frames, rate, length, size and codec."""
        return self._file.info

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return self._file.timeline.duration_s

    @property
    def fps(self) -> float:
        """The average frame rate."""
        return self._file.timeline.fps

    @property
    def rotation(self) -> int:
        """Degrees, clockwise, by which the stored frames are turned for display: 0, 90, 180 or 270. Pixels come upright."""
        return turn_of(self._file.matrix)

    @property
    def streams(self) -> tuple[StreamInfo, ...]:
        """All streams of the file; () of an animated picture."""
        if self._streams is None:
            self._streams = self._opened().streams()
        return self._streams

    @property
    def has_sound(self) -> bool:
        """Whether there is an audio stream."""
        return any(stream.kind == "audio" for stream in self.streams)

    def sample(
        self, options: MediaOptions | None = None, *, config: ProcessorConfig | None = None, on_frame: OnFrame | None = None
    ) -> SampledVideo:
        """The square frames that a model sees of the video, or of the span `options.start`..`options.end`, as `sample_video`."""
        return self._opened().sample(config or ProcessorConfig(), options or MediaOptions(), on_frame)

    def frames(
        self, start: float = 0.0, end: float | None = None, *, fps: float | None = None, longest_edge: int | None = None
    ) -> Iterator[VideoFrame]:
        """The frames shown within `start`..`end` seconds, both included: all of them, or those shown at `fps` moments a second.

        `longest_edge`: pixels that larger frames are shrunk to. Where damage makes the index wrong, the numbers of later frames
        may jump; their times stay right.
        """
        options = MediaOptions(start=start, end=end, fps=fps, longest_edge=longest_edge)

        def choose(timeline: Timeline) -> Sequence[int]:
            first, last = timeline.span(options)
            return range(first, last + 1) if fps is None else timeline.shown_at(options, fps)

        return self._pictures(choose, longest_edge)

    def key_frames(
        self, start: float = 0.0, end: float | None = None, *, every_s: float = 0.0, longest_edge: int | None = None
    ) -> Iterator[VideoFrame]:
        """The frames that stand alone in the file, shown within `start`..`end`: only they are decoded.

        `every_s` leaves out those that come sooner than that after the last one taken. An hour costs seconds. Files without
        usable timestamps, and animated pictures, have their first frame only.
        """
        options = MediaOptions(start=start, end=end, longest_edge=longest_edge)
        every_s = checked(_EVERY_S, every_s)
        file = self._opened()

        def choose(timeline: Timeline) -> Sequence[int]:
            first, last = timeline.span(options)
            wanted: list[int] = []
            taken_s = -np.inf
            for i in file.key_frames():
                if first <= i <= last and (time_s := timeline.times([i])[0]) >= taken_s + every_s:
                    wanted.append(i)
                    taken_s = time_s
            return wanted

        return self._pictures(choose, longest_edge)

    def shots(self, start: float = 0.0, end: float | None = None, *, detector: ShotDetector | None = None) -> list[Shot]:
        """The shots within `start`..`end`: every frame is decoded, shrunk to 64 pixels and shown to the detector.

        `detector`: a callable that gets the frames in order and gives those that begin a new shot; `CutDetector()` by default,
        which finds hard cuts.
        """
        timeline = self._opened().timeline
        frames = self.frames(start, end, longest_edge=SMALL_PX)
        return find_shots(frames, min(timeline.duration_s if end is None else end, timeline.duration_s), detector or CutDetector())

    def packets(
        self, start: float = 0.0, end: float | None = None, *, kinds: Sequence[str] = ("video", "audio")
    ) -> AbstractContextManager[PacketSpan]:
        """The packets of a span as they are, for tools that cut without decoding: `with video.packets(5, 9) as span:`.

        The span begins with the key frame at or before `start`, see `PacketSpan`. Raises VideoError where the packets have no
        usable timestamps.
        """
        timeline = self._opened().timeline
        span = timeline.span(MediaOptions(start=start, end=end))
        return packet_span(self.source, self._limits, timeline, span, kinds)

    def sound(self, start: float = 0.0, end: float | None = None, *, sample_rate: int = 16_000, channels: int = 1) -> Iterator[SoundBlock]:
        """The sound within `start`..`end`, float32 (samples, channels) in blocks with their times, resampled. `channels`: 1 or 2.

        Raises VideoError for a file without sound.
        """
        sample_rate, channels = checked(_SAMPLE_RATE, sample_rate), checked(_CHANNELS, channels)
        if not self.has_sound:
            raise VideoError(f"{self.label} has no sound.")
        options, timeline = MediaOptions(start=start, end=end), self._opened().timeline
        last_s = float("inf") if options.end is None else options.end
        return sound_of(self.source, self._limits, timeline, options.start or 0.0, last_s, sample_rate, channels)

    @property
    def index(self) -> FrameIndex:
        """The packets' times and which of them are keys, for tools that cut. No times where the file has no usable ones."""
        return self._opened().timeline.index

    def container(self) -> Any:
        """The file, opened once more by PyAV under this video's limits: an `InputContainer`, which the caller closes."""
        self._opened()
        return open_container(self.source, self._limits)

    def coded_frames(self, first: int, stop: int) -> Iterator[tuple[int, Any]]:
        """(number, PyAV's `VideoFrame`) of the frames `first`..`stop`, `stop` not included: planes as stored, not turned."""
        file = self._opened()
        if not isinstance(file, VideoFile):
            raise VideoError(f"{self.label} is an animated picture, whose frames are not coded as a video's; convert it to MP4 first.")
        return file.coded(first, stop)

    def subtitles(self) -> Iterator[SubtitleText]:
        """The texts of all streams of subtitles inside the file, with their times; nothing of a file without."""
        timeline = self._opened().timeline
        if any(stream.kind == "subtitle" for stream in self.streams):
            yield from subtitles_in(self.source, self._limits, timeline)

    def _pictures(self, choose: Choose, longest_edge: int | None) -> Iterator[VideoFrame]:
        file = self._opened()
        choose(file.timeline)  # an empty span is refused at the call
        return self._given(file, choose, longest_edge)

    def _given(self, file: Frames, choose: Choose, longest_edge: int | None) -> Iterator[VideoFrame]:
        for i, time_s, pixels in file.pictures(choose, longest_edge):
            yield VideoFrame(i, time_s, pixels)
            self._opened()

    def close(self) -> None:
        """Close the file; closing twice is harmless."""
        if not self._closed:
            self._file.close()
            self._release()

    def _release(self) -> None:
        self._closed = True
        if self._owned:
            self.source.close()

    def _opened(self) -> Frames:
        if self._closed:
            raise VideoError(f"{self.label}: this Video was closed; open it again.")
        return self._file

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Video({self.label!r}, {self.duration_s:.2f} s)"


def sample_video(
    source: VideoLike,
    config: ProcessorConfig,
    options: MediaOptions | None = None,
    policy: SourcePolicy | None = None,
    on_frame: OnFrame | None = None,
) -> SampledVideo:
    """Sample a `Video`, a video file, URL, bytes, or a list of frames (pictures, arrays, paths; or an array (T, H, W, 3)).

    Which frames: the reference's rule with `options.fps` and `options.max_frames` over the checkpoint's; inside
    `start`..`end` seconds when given, or the one that is shown between them. Times are `index / fps` as in the
    reference, and for variable frame rates the real time since the first frame. `on_frame(done, total)` is called after each frame.

    A list of frames is taken whole up to `max_frames`, else evenly spread; its rate is `options.fps` or 24, as the
    reference assumes, and its duration is the last frame's time.

    Raises SourceError for what cannot be opened, VideoError for what is no video, is damaged before a sampled frame,
    or ends before the asked span; ImageError for a listed frame that is no picture.
    """
    options, policy = options or MediaOptions(), policy or SourcePolicy()
    if isinstance(source, Video):
        return source.sample(options, config=config, on_frame=on_frame)
    if is_array_like(source) or isinstance(source, list | tuple):
        return _sample_list(FrameList(source, options, policy), config, options, on_frame)
    with Video(cast(SourceLike, source), policy) as video:
        return video.sample(options, config=config, on_frame=on_frame)


def probe_video(source: SourceLike, policy: SourcePolicy | None = None) -> VideoInfo:
    """What is known about a video file without decoding it. Raises as `sample_video` does."""
    with Video(source, policy) as video:
        return video.info


def _open_file(source: Source, policy: SourcePolicy) -> Frames:
    if animated_format(source):
        return AnimationFile(source, policy.limits)
    kind = picture_format(source.head(64))
    if kind is not None and not is_sequence(source.head(12)):
        raise VideoError(f"{source.label} is a picture ({kind}), not a video; pass it as an image, or several as a list.")
    check_sample_counts(source)
    return VideoFile(source, policy.limits)


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
