"""An encoder in a source's own parameters, for the edges of a cut, and for pieces that cannot be copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from smolvlm.apps.videos.cut.bitstream import packed, units
from smolvlm.errors import VideoError

_ENCODERS = {"h264": "libx264", "hevc": "libx265", "vp9": "libvpx-vp9"}
# Visually lossless: an edge must not look worse than what is copied beside it.
_OPTIONS = {
    "h264": {"crf": "18", "preset": "fast", "bf": "0"},
    "hevc": {"crf": "19", "preset": "veryfast"},
    "vp9": {"crf": "24", "b": "0", "deadline": "good", "cpu-used": "4", "row-mt": "1", "lag-in-frames": "0"},
}
UNKNOWN_COLORS = (0, 2, 2, 2)  # range, primaries, transfer, space
_H264_PROFILES = {
    "Baseline": "baseline",
    "Constrained Baseline": "baseline",
    "Main": "main",
    "High": "high",
    "High 10": "high10",
    "High 4:2:2": "high422",
    "High 4:4:4 Predictive": "high444",
}


@dataclass(frozen=True)
class Coding:
    """How frames are to be encoded: the source's codec and format, or H.264 where its own codec is not written here.

    time_base: of the frames' times. set_id: of the H.264 parameter sets, other than the source's own. length_size: bytes before
    each NAL unit, as the source's packets have them; 0: start codes. in_band: parameter sets stand in the key packets.
    """

    codec: str
    width: int
    height: int
    pix_fmt: str
    time_base: Fraction
    rate: Fraction
    profile: str = ""
    set_id: int = 0
    length_size: int = 0
    in_band: bool = False
    interlaced: bool = False
    colors: tuple[int, int, int, int] = UNKNOWN_COLORS
    aspect: Fraction | None = None

    @property
    def encoder_name(self) -> str:
        return _ENCODERS[self.codec]

    def configure(self, context: Any) -> None:
        """Set up an encoder's context, or that of an output stream, which is one."""
        context.width, context.height, context.pix_fmt = self.width, self.height, self.pix_fmt
        context.time_base, context.framerate = self.time_base, self.rate
        if self.aspect:
            context.sample_aspect_ratio = self.aspect
        context.color_range, context.color_primaries, context.color_trc, context.colorspace = self.colors
        options = dict(_OPTIONS[self.codec])
        if self.codec == "h264":
            options["x264-params"] = f"sps-id={self.set_id}"
            if self.profile in _H264_PROFILES:
                options["profile"] = _H264_PROFILES[self.profile]
        if self.codec == "hevc":
            options["x265-params"] = "bframes=0:open-gop=0:log-level=error"
        context.options = options
        if not self.in_band:
            context.flags |= int(av.codec.context.Flags.global_header)
        if self.interlaced:
            context.flags |= int(av.codec.context.Flags.interlaced_dct) | int(av.codec.context.Flags.interlaced_me)

    def open(self) -> Any:
        """A new encoder. Raises VideoError where this build of PyAV has none."""
        try:
            context = av.CodecContext.create(self.encoder_name, "w")
            self.configure(context)
            context.open()
        except (av.FFmpegError, ValueError) as error:
            raise VideoError(
                f"the edges of the cut cannot be encoded as {self.codec} {self.profile} {self.pix_fmt} ({error}); install PyAV from PyPI "
                "(`pip install av`), whose build has the encoders."
            ) from None
        return context

    def encode(self, frames: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
        """(time, packet) of (time, frame) pairs, in their order, beginning with a key: no frame waits for a later one."""
        context = self.open()
        for time, frame in frames:
            yield from self._packets(context, self._fitting(frame, time))
        yield from self._packets(context, None)

    def _fitting(self, frame: Any, time: int) -> Any:
        if (frame.width, frame.height, frame.format.name) != (self.width, self.height, self.pix_fmt):
            frame = frame.reformat(self.width, self.height, self.pix_fmt)
        frame.pts, frame.time_base = time, self.time_base
        frame.pict_type = 0  # the encoder's choice, not the source's
        return frame

    def _packets(self, context: Any, frame: Any) -> Iterator[tuple[int, Any]]:
        for packet in context.encode(frame):
            time, is_key = packet.pts, packet.is_keyframe
            if self.length_size:
                packet = av.Packet(packed(list(units(bytes(packet), 0)), self.length_size))
                packet.is_keyframe = is_key
            yield time, packet
