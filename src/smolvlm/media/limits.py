"""How much of a picture, a video or a download is ever read: bounds on what hostile input can cost."""

from __future__ import annotations

from dataclasses import dataclass, fields

from smolvlm.media.options import check_number


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what one source may cost. Sizes in bytes, pictures in pixels, time in seconds.

    The pixel bounds are checked against the header, before anything of that size is allocated.
    """

    max_image_pixels: int = 100_000_000
    max_video_pixels: int = 40_000_000  # of one frame: 8K is 33 million
    max_download_bytes: int = 2 * 1024**3
    max_data_url_bytes: int = 64 * 1024**2  # after decoding
    max_stream_bytes: int = 2 * 1024**3  # of a file-like object
    timeout_s: float = 60.0  # connecting and each wait for data
    max_download_s: float = 1800.0  # the whole download: a server that drips a byte a minute ends here
    max_redirects: int = 5

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            check_number(field.name, value, least=0, above=field.name != "max_redirects")


# What a server reads of each source that a request holds.
STRANGERS = Limits(
    max_image_pixels=50_000_000,
    max_video_pixels=9_000_000,  # 4096 x 2160 is 8.8 million
    max_download_bytes=64 * 1024**2,
    max_data_url_bytes=64 * 1024**2,
    max_stream_bytes=64 * 1024**2,
    timeout_s=10.0,
    max_download_s=60.0,
    max_redirects=3,
)
