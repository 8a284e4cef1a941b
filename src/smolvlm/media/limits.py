"""How much of a picture, a video or a download is ever read: bounds on what hostile input can cost."""

from __future__ import annotations

from dataclasses import dataclass

from smolvlm.options.declare import check, option


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds on what one source may cost. Sizes in bytes, pictures in pixels, time in seconds.

    The pixel bounds are checked against the header, before anything of that size is allocated.
    """

    max_image_pixels: int = option(100_000_000, "Pixels of a picture.", least=1)
    max_video_pixels: int = option(40_000_000, "Pixels of one frame; 8K is 33 million.", least=1)
    max_download_bytes: int = option(2 * 1024**3, "Bytes of a download.", least=1)
    max_data_url_bytes: int = option(64 * 1024**2, "Bytes of a data URL, after decoding.", least=1)
    max_stream_bytes: int = option(2 * 1024**3, "Bytes of a file-like object.", least=1)
    timeout_s: float = option(60.0, "Connecting, and each wait for data.", above=0)
    max_download_s: float = option(1800.0, "The whole download: a server that drips a byte a minute ends here.", above=0)
    max_redirects: int = option(5, "Redirects that are followed.", least=0)

    def __post_init__(self) -> None:
        check(self)


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
