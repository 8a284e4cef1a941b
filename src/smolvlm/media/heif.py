"""HEIC and HEIF photos through the optional `pi_heif`; AVIF is Pillow's own.

The library is used as a reader, not registered with Pillow: a registration would change the whole process.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image

from smolvlm.errors import ImageError, MissingExtraError
from smolvlm.media.labels import one_line
from smolvlm.media.sources import Source
from smolvlm.options.media import OnWarning

_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_SEQUENCE_BRANDS = {b"hevc", b"hevx", b"msf1"}
AVIF_BRANDS = {b"avif", b"avis"}


def is_heif(head: bytes) -> bool:
    """Whether a file that starts like this (32 bytes do) is HEIC or HEIF; false for AVIF, which Pillow reads."""
    if head[4:8] != b"ftyp":
        return False
    compatible = {head[i : i + 4] for i in range(16, len(head) - 3, 4)}
    return head[8:12] in _HEIF_BRANDS and not ({head[8:12], *compatible} & AVIF_BRANDS)


def is_sequence(head: bytes) -> bool:
    """Whether a file that starts like this is first of all a sequence of pictures in time (burst, animation)."""
    return head[4:8] == b"ftyp" and head[8:12] in _SEQUENCE_BRANDS


def open_heif(source: Source, check_size: Callable[[tuple[int, int]], None], on_warning: OnWarning) -> Image.Image:
    """The primary picture, decoded; `check_size` sees (width, height) before any pixel is.

    Raises MissingExtraError without the `heic` extra, ImageError for damaged files.
    """
    try:
        import pi_heif
    except ImportError:
        raise MissingExtraError(f"{source.label}: reading HEIC and HEIF", "heic") from None
    try:
        with source.open() as stream:
            heif = pi_heif.open_heif(stream, convert_hdr_to_8bit=True)
            size = heif.size
            check_size(size)
            if len(heif) > 1:
                on_warning(f"only the main one of its {len(heif)} pictures was read.")
            image: Image.Image = heif.to_pillow()
    except ImageError:
        raise
    except Exception as error:  # the decoder raises anything on damaged data
        raise ImageError(
            f"{source.label}: the HEIC picture is damaged or cut off ({one_line(error)}); copy the file again or save it as JPEG."
        ) from None
    # libheif has already turned the pixels by the container's own rotation; EXIF would turn them twice.
    image.info.pop("exif", None)
    return image
