"""What a caller may ask of pictures and videos.

Help, defaults, ranges and doors live here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from smolvlm.errors import ParamsError
from smolvlm.options.declare import check, declared, option

Detail = Literal["official", "fit", "low"]
DETAILS: tuple[str, ...] = ("official", "fit", "low")
ToneMap = Literal["off", "auto"]
TONE_MAPS: tuple[str, ...] = ("off", "auto")
Sampling = Literal["official", "time"]
SAMPLINGS: tuple[str, ...] = ("official", "time")
WantedKind = Literal["auto", "image", "video"]
MEDIA_KINDS: tuple[str, ...] = ("auto", "image", "video")
_BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}
_HEX_COLOR = re.compile(r"#[0-9A-Fa-f]{6}", re.ASCII)
# Called with one sentence for each thing that a caller would not expect of a medium: what was left out, what else to pass.
OnWarning: TypeAlias = Callable[[str], None]


def background_rgb(color: object) -> tuple[int, int, int]:
    """(red, green, blue) of "white", "black" or "#rrggbb". Raises ParamsError for anything else."""
    if isinstance(color, str):
        if color in _BACKGROUNDS:
            return _BACKGROUNDS[color]
        if _HEX_COLOR.fullmatch(color):
            return int(color[1:3], 16), int(color[3:5], 16), int(color[5:7], 16)
    raise ParamsError(f"background={color!r}: expected white, black or a color such as #ff8800.")


def _background(_name: str, color: object) -> object:
    background_rgb(color)
    return color


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

    detail: Detail = option(
        "official",
        "official (every picture scaled up and split), fit (never enlarged, much faster for small pictures) or low (one tile a "
        "picture, fastest).",
        choices=DETAILS,
        doors=("cli", "http", "page", "train"),
        media=("image",),
        metavar="LEVEL",
    )
    image_splitting: bool | None = option(None, "Split pictures into tiles, or take each as one.", doors=("cli", "http"), media=("image",))
    longest_edge: int | None = option(
        None,
        "Pixels that the longest side of a picture is scaled to before it is split.",
        least=1,
        doors=("cli", "http"),
        media=("image",),
        metavar="N",
    )
    fps: float | None = option(
        None, "Frames sampled a second of video.", above=0, doors=("cli", "http", "train"), media=("video",), metavar="X"
    )
    max_frames: int | None = option(
        None, "At most this many frames of a video.", least=1, doors=("cli", "http", "page", "train"), media=("video",), metavar="N"
    )
    start: float | None = option(
        None, "Begin here in a video: seconds from its first frame.", least=0, doors=("cli", "http"), media=("video",), metavar="TIME"
    )
    end: float | None = option(
        None, "End here in a video: seconds from its first frame.", least=0, doors=("cli", "http"), media=("video",), metavar="TIME"
    )
    sampling: Sampling = option(
        "official",
        "official (evenly by the frames' numbers) or time (evenly in time; differs where a video's frame rate varies).",
        choices=SAMPLINGS,
        doors=("cli", "http"),
        media=("video",),
        metavar="RULE",
    )
    tone_map: ToneMap = option(
        "off",
        "off (values as stored, as the published processor) or auto (HDR and wide-gamut media are brought to the colors of a "
        "common screen).",
        choices=TONE_MAPS,
        doors=("cli", "http"),
        media=("image", "video"),
        metavar="MODE",
    )
    media_kind: WantedKind = option(
        "auto",
        "auto (animated pictures are videos), image (of an animation the first frame) or video.",
        choices=MEDIA_KINDS,
        doors=("cli", "http"),
        flag="--as",
        metavar="KIND",
    )
    background: str | None = option(
        None,
        "Behind transparent parts: white, black or #rrggbb; without it a file's hidden colors are shown, as the published processor does.",
        doors=("cli", "http"),
        media=("image", "video"),
        metavar="COLOR",
        convert=_background,
    )
    max_pixels: int | None = option(
        None,
        "The largest picture that is decoded whole. Larger JPEGs are decoded at a half or a quarter of their size, other "
        "formats are refused.",
        least=1,
        doors=("cli",),
        metavar="N",
    )

    def __post_init__(self) -> None:
        check(self)
        if self.end is not None and self.end < (self.start or 0):
            raise ParamsError(f"end={self.end} is before start={self.start or 0}; pass an end after the start.")


def of_medium(kind: str) -> tuple[str, ...]:
    """The options that change an "image" or a "video"."""
    return tuple(name for name, made in declared(MediaOptions).items() if kind in made.media)


# Of a picture they change nothing.
VIDEO_OPTIONS = tuple(name for name in of_medium("video") if name not in of_medium("image"))
