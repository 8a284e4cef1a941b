"""What a caller may ask of pictures and videos.

Their defaults live here and nowhere else; the command line and the server read them from this dataclass.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from smolvlm.errors import ParamsError

Detail = Literal["official", "fit", "low"]
DETAILS: tuple[str, ...] = ("official", "fit", "low")
ToneMap = Literal["off", "auto"]
TONE_MAPS: tuple[str, ...] = ("off", "auto")
Sampling = Literal["official", "time"]
SAMPLINGS: tuple[str, ...] = ("official", "time")
WantedKind = Literal["auto", "image", "video"]
MEDIA_KINDS: tuple[str, ...] = ("auto", "image", "video")
VIDEO_OPTIONS = ("fps", "max_frames", "start", "end", "sampling")  # of a picture they change nothing
_BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}
_HEX_COLOR = re.compile(r"#[0-9A-Fa-f]{6}", re.ASCII)
# Called with one sentence for each thing that a caller would not expect of a medium: what was left out, what else to pass.
OnWarning: TypeAlias = Callable[[str], None]


def check_number(name: str, value: object, *, least: float, above: bool) -> None:
    """Raise ParamsError unless `value` is a finite number >= `least` (or > `least` when `above`)."""
    bound = f"{'above' if above else 'of at least'} {least:g}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ParamsError(f"{name}={value!r}: expected a finite number {bound}.")
    if value < least or (above and value == least):
        raise ParamsError(f"{name}={value!r}: expected a number {bound}.")


def _whole(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParamsError(f"{name}={value!r}: expected a whole number of at least 1.")


def background_rgb(color: object) -> tuple[int, int, int]:
    """(red, green, blue) of "white", "black" or "#rrggbb". Raises ParamsError for anything else."""
    if isinstance(color, str):
        if color in _BACKGROUNDS:
            return _BACKGROUNDS[color]
        if _HEX_COLOR.fullmatch(color):
            return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    raise ParamsError(f"background={color!r}: expected white, black or a color such as #ff8800.")


@dataclass(frozen=True, kw_only=True)
class MediaOptions:
    """The caller's choices; None means what the checkpoint's `preprocessor_config.json` says.

    detail: "official" scales every picture to `longest_edge` and splits it, as the published processor does; "fit"
        never enlarges, so that a thumbnail is one tile and not seventeen; "low" is one tile whatever the picture.
    image_splitting: False makes every picture one tile (the reference's `do_image_splitting`).
    longest_edge: pixels that the longest side is scaled to before splitting; the reference caps it at 4096.
    fps: frames sampled a second of a video; for a list of frames, the rate at which they were taken (24 if None).
    max_frames: a cap on sampled frames, not a count.
    start, end: seconds from the first frame; only frames inside are sampled, both ends included.
    sampling: "official" takes frames evenly by their number, as the published processor does, which crowds them together
        where a variable rate is high; "time" takes the frames that are shown at evenly spread times.
    tone_map: "off" takes the values of HDR and wide-gamut media as they are stored, as the published processor does, and
        warns; "auto" brings them to the colors of a common screen (sRGB).
    media_kind: what a file is looked at as where nobody says it: "auto" takes an animated GIF, WebP, PNG or AVIF as a video,
        "image" its first frame, "video" insists on a video. Parts of messages name their own kind.
    background: what lies behind transparent pixels: "white", "black" or "#rrggbb". None is the reference's way: the hidden
        colors of a file, white behind a picture that is already decoded.
    max_pixels: the largest picture that is decoded whole, instead of `Limits.max_image_pixels`.

    Raises ParamsError for a value out of its range.
    """

    detail: Detail = "official"
    image_splitting: bool | None = None
    longest_edge: int | None = None
    fps: float | None = None
    max_frames: int | None = None
    start: float | None = None
    end: float | None = None
    sampling: Sampling = "official"
    tone_map: ToneMap = "off"
    media_kind: WantedKind = "auto"
    background: str | None = None
    max_pixels: int | None = None

    def __post_init__(self) -> None:
        for name, choices in (("detail", DETAILS), ("sampling", SAMPLINGS), ("tone_map", TONE_MAPS), ("media_kind", MEDIA_KINDS)):
            if getattr(self, name) not in choices:
                raise ParamsError(f"{name}={getattr(self, name)!r}: expected one of {', '.join(choices)}.")
        if self.image_splitting is not None and not isinstance(self.image_splitting, bool):
            raise ParamsError(f"image_splitting={self.image_splitting!r}: expected True, False or None.")
        if self.background is not None:
            background_rgb(self.background)
        for name in ("longest_edge", "max_frames", "max_pixels"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name))
        if self.fps is not None:
            check_number("fps", self.fps, least=0, above=True)
        for name in ("start", "end"):
            if getattr(self, name) is not None:
                check_number(name, getattr(self, name), least=0, above=False)
        if self.end is not None and self.end < (self.start or 0):
            raise ParamsError(f"end={self.end} is before start={self.start or 0}; pass an end after the start.")
