"""How much of the media of strangers is read.

The numbers of one source live in `media.options.Limits`, which is made from these; the rest is the server's own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from pathlib import Path

from smolvlm.errors import ParamsError
from smolvlm.media.options import Limits


@dataclass(frozen=True)
class StoredFile:
    """An upload that the server itself put at `path`. `label` is what messages call it; the path is never shown."""

    path: Path
    label: str = "the uploaded file"


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Bounds on what requests may cost. Sizes in bytes and pixels, times in seconds. Raises ParamsError for bad ones.

    max_frames caps what is sampled of a video; a request that asks for more is refused. max_video_s is the length of the
    whole video, also when only a span is asked for. decode_s is the processor time of one medium; stalled_s, on the
    clock, ends what uses none, and what a busy machine does not get done. worker_mb is the address space of one decoding
    process, about 250 MB of which it needs for itself. queue_s is how long a request waits for a free worker. download_s
    covers everything from the resolver to the last byte.
    """

    max_media: int = 16  # in one request
    max_media_bytes: int = 64 * 1024**2
    max_image_pixels: int = 50_000_000
    max_frame_pixels: int = 9_000_000  # of one frame: 4096 x 2160 is 8.8 million
    max_frames: int = 64
    max_video_s: float = 3600.0
    decode_s: float = 30.0
    stalled_s: float = 120.0
    worker_mb: int = 2048
    workers: int = 2
    queue_s: float = 60.0
    owner_waiting: int = 112  # media of one owner that wait for a decoding process: seven requests of the largest kind
    download_s: float = 60.0
    wait_s: float = 10.0  # for a remote host to answer, and between two pieces of a download
    max_downloads: int = 8  # at the same time

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = int if field.type == "int" else int | float
            if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or value <= 0:
                expected = "a whole number of at least 1" if kinds is int else "a number above 0"
                raise ParamsError(f"{field.name}={value!r}: expected {expected}.")

    def of_one_source(self) -> Limits:
        """The same bounds as `media/` reads them."""
        return Limits(
            max_image_pixels=self.max_image_pixels,
            max_video_pixels=self.max_frame_pixels,
            max_download_bytes=self.max_media_bytes,
            max_data_url_bytes=self.max_media_bytes,
            max_stream_bytes=self.max_media_bytes,
            timeout_s=self.wait_s,
            max_download_s=self.download_s,
        )
