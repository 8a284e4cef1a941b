"""A picture's header -> a lazily opened Pillow picture: no pixel is decoded yet, nothing of the process is changed."""

from __future__ import annotations

import logging
import os
import re
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

from PIL import ExifTags, Image, UnidentifiedImageError

from smolvlm.errors import ImageError
from smolvlm.media.labels import one_line
from smolvlm.media.sources import Source
from smolvlm.media.strangers import READABLE, what_instead

logger = logging.getLogger(__name__)

# Pillow's plugins that parse in process. Not EPS (it starts Ghostscript), nor the rare ones nobody sends as photos.
IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "MPO", "JPEG2000", "AVIF", "DIB")

_quiet_lock = threading.Lock()  # the list of warning filters belongs to the whole process
if hasattr(os, "register_at_fork"):  # another thread may hold it while this process is forked

    def _unlock() -> None:
        global _quiet_lock
        _quiet_lock = threading.Lock()

    os.register_at_fork(after_in_child=_unlock)

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@contextmanager
def quiet() -> Iterator[None]:
    """Plugins' warnings about damaged metadata and large frames are not for our callers."""
    with _quiet_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def open_header(source: Source) -> Iterator[Image.Image]:
    """The picture of `source` by its header. Its size is not checked yet. Raises ImageError for what is no picture."""
    with source.open() as stream:
        image = open_picture(stream, source.label)
        with image:
            yield image


def open_picture(stream: BinaryIO, label: str) -> Image.Image:
    """As `Image.open`, without its bound on pixels, which belongs to the process: the callers check their own."""
    try:
        with quiet():
            stream.seek(0)
            head = stream.read(64)
            for name in IMAGE_FORMATS:
                if (image := _as_format(name, head, stream)) is not None:
                    return image
        raise UnidentifiedImageError
    except UnidentifiedImageError:
        raise ImageError(f"{label} is not a picture that can be read{what_instead(head)}; expected {READABLE}.") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{label}: the picture is damaged (a frame of it claims far too many pixels); save it again.") from None
    except Exception as error:  # plugins raise anything on hostile headers; all of it means the same
        check_texts(label, error)
        raise ImageError(f"{label}: the picture's header is damaged ({one_line(error)}); copy or download the file again.") from None


def check_texts(label: str, error: Exception) -> None:
    """Raise ImageError if `error` is Pillow's bound on what a PNG's text chunks unpack to: such a file is not damaged."""
    if isinstance(error, ValueError) and re.search(r"MAX_TEXT_CHUNK|text chunks|MAX_TEXT_MEMORY", str(error)):
        raise ImageError(
            f"{label}: its metadata unpack to more than is read; remove them, as by `exiftool -all= FILE`, or save the picture again."
        ) from None


def _as_format(name: str, head: bytes, stream: BinaryIO) -> Image.Image | None:
    if name not in Image.OPEN:
        Image.init()
    if name not in Image.OPEN:
        return None  # this Pillow was built without it
    factory, accept = Image.OPEN[name]
    try:
        accepted = accept is None or accept(head)
        if isinstance(accepted, str) or not accepted:
            return None
        stream.seek(0)
        return factory(stream, "")
    except (SyntaxError, IndexError, TypeError, struct.error):  # a plugin's way of saying: not mine
        return None


def check_pixels(label: str, size: tuple[int, int], most: int) -> None:
    """Raise ImageError for a picture without pixels, or with more than `most`."""
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{label}: the picture is {width} x {height} pixels; it needs at least one.")
    if width * height > most:
        raise ImageError(
            f"{label}: the picture is {width} x {height} pixels, more than the limit of {most}; shrink it first, or raise max_pixels."
        )


def orientation_of(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation, 1..8; 1 when there is none or the metadata is broken, which harms no pixel."""
    try:
        with quiet():
            value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) and 1 <= value <= 8 else 1
    except Exception as error:  # a photo with broken metadata is still a photo
        logger.debug("orientation not read: %s", one_line(error))
        return 1


def upright(original: Image.Image, pixels: Image.Image, orientation: int | None = None) -> Image.Image:
    """`pixels` turned as the metadata of `original` says, or by `orientation`."""
    turn = _UPRIGHT.get(orientation_of(original) if orientation is None else orientation)
    return pixels if turn is None else pixels.transpose(turn)
