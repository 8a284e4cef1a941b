"""Is it a picture or a video? Decided by content, never by a file's name."""

from __future__ import annotations

from typing import Literal

from smolvlm.errors import SmolVLMError, SourceError
from smolvlm.media.animation import animated_format
from smolvlm.media.heif import AVIF_BRANDS, is_heif, is_sequence
from smolvlm.media.limits import Limits
from smolvlm.media.mp4_boxes import check_sample_counts
from smolvlm.media.opening import open_header
from smolvlm.media.raw_photo import raw_format
from smolvlm.media.sources import Source
from smolvlm.media.strangers import READABLE, what_instead
from smolvlm.options.media import WantedKind

MediaKind = Literal["image", "video"]

_PICTURES = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"\0\0\0\x0cjP  \r\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
)
_VIDEOS = (
    b"\x1a\x45\xdf\xa3",  # Matroska, WebM
    b"\0\0\x01\xba",
    b"\0\0\x01\xb3",  # MPEG program and elementary streams
    b"FLV\x01",
    b"OggS",
    b"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    b"DKIF",
    b"\x06\x0e\x2b\x34\x02\x05\x01\x01",
)
_MP4_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
READABLE_VIDEOS = "MP4, MOV, Matroska, WebM, AVI, MPEG, MPEG-TS, FLV, Ogg and WMV"


def picture_format(head: bytes) -> str | None:
    """The picture format that a file starting like this has (64 bytes do), or None; animations are among them."""
    for magic, name in _PICTURES:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    if head[:2] in (b"P1", b"P2", b"P3", b"P4", b"P5", b"P6") and head[2:3].isspace():
        return "PPM"
    if head[4:8] == b"ftyp" and head[8:12] in AVIF_BRANDS:
        return "AVIF"
    return "HEIC" if is_heif(head) else raw_format(head)


def _starts_like_video(head: bytes) -> bool:
    if head.startswith(_VIDEOS) or head[4:8] in _MP4_BOXES:
        return True
    if head[:4] == b"RIFF" and head[8:12] in (b"AVI ", b"AVIX"):
        return True
    # A transport stream repeats its sync byte every 188 bytes, or 192 with a time code before each packet.
    return any(len(head) > at + step and head[at] == head[at + step] == 0x47 for at, step in ((0, 188), (4, 192)))


def signature_kind(head: bytes) -> MediaKind | None:
    """Whether "image" or "video", by the first bytes alone (256 do), None where these tell nothing."""
    if picture_format(head) is not None:
        return "image"
    return "video" if _starts_like_video(head) else None


def media_kind(source: Source, limits: Limits | None = None, wanted: WantedKind = "auto") -> MediaKind:
    """Whether "image" or "video": by the first bytes, then by asking the decoders. An animated picture is a video.

    `wanted` is `MediaOptions.media_kind`: any other than "auto" is the answer, and reading shows whether it holds.
    Raises SourceError naming what can be read when it is neither; whether the rest is sound shows only on reading.
    """
    if wanted != "auto":
        return wanted
    head = source.head(256)
    if picture_format(head) is not None:
        return "video" if is_sequence(head) or animated_format(source) else "image"
    if _starts_like_video(head):
        return "video"
    limits = limits or Limits()
    try:
        with open_header(source):
            return "image"
    except SmolVLMError:
        pass  # not a picture; the answer is below
    from smolvlm.media.video_reader import VideoReader  # here, so that pictures alone never load libav

    try:
        check_sample_counts(source)
        with VideoReader(source, limits):
            return "video"
    except SmolVLMError:
        raise SourceError(
            f"{source.label} is neither a picture nor a video that can be read{what_instead(head)}; expected "
            f"{READABLE}; or {READABLE_VIDEOS}."
        ) from None
