"""One picture, whatever form it comes in -> a Pillow RGB picture, upright.

Files are read as `transformers.image_utils.load_image` reads them: turned by EXIF, then `convert("RGB")`, which drops
alpha. Pictures that are already decoded (Pillow objects, arrays) are treated as its image processor treats them:
transparency is laid over white. The two differ in the reference, and each way of ours equals its own.
"""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TypeAlias, cast

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from smolvlm.errors import ImageError, SmolVLMError
from smolvlm.media.arrays import array_to_image, is_array_like
from smolvlm.media.depth import eight_bit
from smolvlm.media.heif import is_heif, open_heif
from smolvlm.media.labels import one_line
from smolvlm.media.options import Limits, OnWarning
from smolvlm.media.sources import Source, SourceLike, SourcePolicy, open_source

logger = logging.getLogger(__name__)

ImageLike: TypeAlias = "SourceLike | Image.Image | np.ndarray[Any, Any]"

# Pillow's plugins that parse in process. Not EPS (it starts Ghostscript), nor the rare ones nobody sends as photos.
IMAGE_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "ICO", "MPO", "JPEG2000", "AVIF", "DIB")
_ANIMATED = ("GIF", "PNG", "WEBP", "AVIF")
READABLE = "JPEG, PNG, GIF, WebP, BMP, TIFF, PPM, ICO, JPEG 2000, AVIF and, with the `heic` extra, HEIC"

# Pillow warns about large pictures while it reads a header. We check the size ourselves; its warning is silenced, under
# a lock because the list of filters belongs to the whole process.
_header_lock = threading.Lock()

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_270, 7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # fmt: skip


def load_image(source: ImageLike, policy: SourcePolicy | None = None, *,
               on_warning: OnWarning | None = None) -> Image.Image:  # fmt: skip
    """An upright RGB picture from a path, URL, data URL, bytes, file object, Pillow picture, array or tensor.

    Of an animation, the first frame, which `on_warning` is told; 16-bit and float pictures are scaled to 8 bits, never
    clipped. Arrays may be (H, W), (H, W, C) or (C, H, W) with 1, 3 or 4 channels: uint8, uint16, bool, or floats in 0..1 or 0..255.

    Raises SourceError for what cannot be opened, ImageError for what is not a picture or is beyond the limits, and
    MissingExtraError for HEIC without the `heic` extra.
    """
    policy = policy or SourcePolicy()
    if isinstance(source, Image.Image):
        return _from_picture(source, policy.limits)
    if is_array_like(source):
        return array_to_image(source, policy.limits)
    if isinstance(source, Source):
        return _from_source(source, policy.limits, on_warning)
    with open_source(cast(SourceLike, source), policy) as opened:
        return _from_source(opened, policy.limits, on_warning)


@contextmanager
def open_header(source: Source, limits: Limits) -> Iterator[Image.Image]:
    """A lazily opened picture: the header is read and its size is within the limits, no pixel is decoded yet."""
    with source.open() as stream:
        try:
            with _header_lock, warnings.catch_warnings():
                warnings.simplefilter("ignore")
                image = Image.open(stream, formats=_formats())
        except Image.DecompressionBombError:
            raise _too_many_pixels(source.label, None, limits) from None
        except Exception as error:  # plugins raise anything on hostile headers; all of it means the same
            raise _unreadable(source, error) from None
        _check_pixels(source.label, image.size, limits)
        with image:
            yield image


def _formats() -> list[str]:
    Image.init()
    return [name for name in IMAGE_FORMATS if name in Image.OPEN]


def _from_source(source: Source, limits: Limits, on_warning: OnWarning | None) -> Image.Image:
    if is_heif(source.head(32)):
        image = open_heif(source, lambda size: _check_pixels(source.label, size, limits))
        return _convert(image, source.label, over_white=False)
    with open_header(source, limits) as image:
        try:
            image.load()
        except Exception as error:  # decoders raise anything on damaged data
            raise ImageError(f"{source.label}: the picture is damaged or cut off ({one_line(error)}); "
                             "copy or download the file again.") from None  # fmt: skip
        if on_warning is not None and image.format in _ANIMATED and getattr(image, "n_frames", 1) > 1:
            on_warning("only the first of its frames is used; a list of frames is looked at as a video.")
        return _convert(image, source.label, over_white=False)


def _from_picture(image: Image.Image, limits: Limits) -> Image.Image:
    label = f"<{image.width} x {image.height} {image.mode} picture>"
    _check_pixels(label, image.size, limits)
    try:
        image.load()
    except Exception as error:  # as above: a lazily opened file may be behind the object
        raise ImageError(f"{label}: the picture cannot be decoded ({one_line(error)}); open it again.") from None
    return _convert(image, label, over_white=True)


def _convert(image: Image.Image, label: str, *, over_white: bool) -> Image.Image:
    """Upright, 8 bits, RGB; a new picture that shares nothing with `image`."""
    try:
        turn = _UPRIGHT.get(_orientation(image))
        rgb = _to_rgb(eight_bit(image), over_white=over_white)
        return rgb.transpose(turn) if turn is not None else (rgb.copy() if rgb is image else rgb)
    except SmolVLMError:
        raise
    except Exception as error:
        raise ImageError(f"{label}: a picture of mode {image.mode} cannot be converted to RGB ({one_line(error)}); "
                         "save it as PNG or JPEG first.") from None  # fmt: skip


def _to_rgb(image: Image.Image, *, over_white: bool) -> Image.Image:
    has_transparency = "A" in image.getbands() or "a" in image.getbands() or image.info.get("transparency") is not None
    if has_transparency and over_white:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (255, 255, 255, 255)), image).convert("RGB")
    if image.mode == "P" and isinstance(image.info.get("transparency"), bytes):
        image = image.convert("RGBA")  # the same colours, without Pillow's warning about palettes
    return image.convert("RGB")


def _orientation(image: Image.Image) -> int:
    """The EXIF (or XMP) orientation, 1..8; 1 when there is none or the metadata is broken, which harms no pixel."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
        return value if isinstance(value, int) else 1
    except Exception as error:  # a photo with broken metadata is still a photo
        logger.debug("orientation not read: %s", one_line(error))
        return 1


def _check_pixels(label: str, size: tuple[int, int], limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f"{label}: the picture is {width} x {height} pixels; it needs at least one.")
    if width * height > limits.max_image_pixels:
        raise _too_many_pixels(label, size, limits)


def _too_many_pixels(label: str, size: tuple[int, int] | None, limits: Limits) -> ImageError:
    what = f"the picture is {size[0]} x {size[1]} pixels" if size else "the picture has far too many pixels"
    return ImageError(f"{label}: {what}, more than the limit of {limits.max_image_pixels}; shrink it first.")


def _unreadable(source: Source, error: Exception) -> ImageError:
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"{source.label} is not a picture that can be read; expected {READABLE}.")
    return ImageError(f"{source.label}: the picture's header is damaged ({one_line(error)}); "
                      "copy or download the file again.")  # fmt: skip
