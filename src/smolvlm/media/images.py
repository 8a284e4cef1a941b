"""One picture, whatever form it comes in -> a Pillow RGB picture, upright.

Files are read as `transformers.image_utils.load_image` reads them: turned by EXIF, then `convert("RGB")`, which drops
alpha. Pictures that are already decoded (Pillow objects, arrays) are treated as its image processor treats them:
transparency is laid over white. The two differ in the reference, and each way of ours equals its own.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, BinaryIO, TypeAlias, cast

import numpy as np
from PIL import Image

from smolvlm.errors import ImageError, SmolVLMError
from smolvlm.media.animation import animated_format
from smolvlm.media.arrays import array_to_image, is_array_like
from smolvlm.media.colors import to_srgb
from smolvlm.media.cut_off import MAX_MISSING, Rest, read_rest
from smolvlm.media.depth import eight_bit
from smolvlm.media.heif import is_heif, open_heif
from smolvlm.media.labels import one_line
from smolvlm.media.limits import Limits
from smolvlm.media.opening import check_pixels, check_texts, open_picture, orientation_of, upright
from smolvlm.media.picture_row import is_row
from smolvlm.media.raw_photo import TIFF_STARTS, embedded_jpegs, offsets_of, raw_format, raw_orientation
from smolvlm.media.reduced import shrink_to_limit
from smolvlm.media.sources import Source, SourceLike, SourcePolicy, open_source
from smolvlm.media.tiff_pages import TiffFile, View, at_page, describe_page, read_tiff, unlinked
from smolvlm.media.transparency import flatten
from smolvlm.options.media import MediaOptions, OnWarning

ImageLike: TypeAlias = "SourceLike | Image.Image | np.ndarray[Any, Any]"

_MOST_BYTES = 1 << 28  # of a damaged file, held in memory


def load_image(
    source: ImageLike, policy: SourcePolicy | None = None, *, options: MediaOptions | None = None, on_warning: OnWarning | None = None
) -> Image.Image:
    """An upright RGB picture from a path, URL, data URL, bytes, file object, Pillow picture, array or tensor.

    Of `options`, `background`, `max_pixels` and `tone_map` matter here. `on_warning` is told in one sentence what a look at
    the file would not lead one to expect: that it is an animation or a document of which the first picture was read, a
    camera's raw photo, cut off, transparent, too large, or made for other colors than sRGB.

    16-bit and float pictures are scaled to 8 bits, never clipped. Arrays may be (H, W), (H, W, C) or (C, H, W) with 1, 3
    or 4 channels: uint8, uint16, bool, or floats in 0..1 or 0..255.

    Raises SourceError for what cannot be opened, ImageError for what is not a picture or is beyond the limits, and
    MissingExtraError for HEIC without the `heic` extra.
    """
    policy, options = policy or SourcePolicy(), options or MediaOptions()
    most = options.max_pixels or policy.limits.max_image_pixels
    if is_array_like(source):
        return array_to_image(source, Limits(max_image_pixels=most), options.background)
    if isinstance(source, Image.Image):
        return _Reading(f"<{source.width} x {source.height} {source.mode} picture>", most, options, on_warning).picture(source)
    with nullcontext(source) if isinstance(source, Source) else open_source(cast(SourceLike, source), policy) as opened:
        return _Reading(opened.label, most, options, on_warning).file(opened)


class _Reading:
    """One picture on its way: what its messages call it, its limit, and who is told."""

    def __init__(self, label: str, most: int, options: MediaOptions, on_warning: OnWarning | None) -> None:
        self._label, self._most, self._options = label, most, options
        self._warn: OnWarning = on_warning or (lambda _: None)

    def picture(self, image: Image.Image) -> Image.Image:
        """An object of Pillow's, decoded or not."""
        check_pixels(self._label, image.size, self._most)
        try:
            image.load()
        except Exception as error:  # a lazily opened file may be behind the object
            raise ImageError(f"{self._label}: the picture cannot be decoded ({one_line(error)}); open it again.") from None
        return self._convert(image, b"", from_file=False)

    def file(self, source: Source) -> Image.Image:
        head = source.head(1 << 20)
        if is_heif(head):
            image = open_heif(source, lambda size: check_pixels(self._label, size, self._most), self._warn)
            return self._convert(image, head)
        with source.open() as stream:
            tiff = read_tiff(stream)
            if raw_format(head) or (tiff is not None and tiff.raw):
                return self._raw(stream, tiff, raw_format(head) or "TIFF")
            if tiff is not None and tiff.pages:
                return self._tiff(stream, tiff, head)
            image = self._open(stream)
            shrink_to_limit(image, stream, self._label, self._most, self._warn)
            with image:
                self._tell_of_others(source, image)
                return self._convert(self._loaded(stream, image), head)

    def _open(self, stream: BinaryIO) -> Image.Image:
        return open_picture(stream, self._label)

    def _loaded(self, stream: BinaryIO, image: Image.Image) -> Image.Image:
        """The picture with its pixels, as far as they are there."""
        try:
            image.load()
            return image
        except Exception as error:  # decoders raise anything on damaged data
            check_texts(self._label, error)
            reason, cause = one_line(error), error
            rest = self._rest(stream, image) if isinstance(error, OSError) else None
        if rest is not None and rest.image is not None and rest.missing <= MAX_MISSING:
            self._warn(f"the file is cut off: {rest.what}.")
            return rest.image
        if rest is not None:
            reason = rest.what
        raise ImageError(f"{self._label}: the picture is damaged or cut off ({reason}); copy or download the file again.") from cause

    def _rest(self, stream: BinaryIO, image: Image.Image) -> Rest | None:
        def reopen(whole: BinaryIO) -> Image.Image:
            again = self._open(whole)
            shrink_to_limit(again, whole, self._label, self._most, lambda _: None)
            return again

        stream.seek(0)
        data = stream.read(_MOST_BYTES + 1)
        try:
            return read_rest(data, image.format, image, reopen) if len(data) <= _MOST_BYTES else None
        except Exception:  # it is damaged in more than its end
            return None

    def _tiff(self, stream: BinaryIO, tiff: TiffFile, head: bytes) -> Image.Image:
        page = tiff.main_page(self._most)
        if page is not None and page is not tiff.pages[0]:
            image = self._open(at_page(stream, tiff, page))
        else:
            image = self._open(stream)
        if page is not None and all(other.reduced for other in tiff.pages):
            found = next(unlinked(stream, offsets_of(stream, TIFF_STARTS)), None)
            if found is not None:
                image = self._open(at_page(*found))
                self._warn(
                    f"its directory names a small preview only; the full picture of {image.width} x {image.height} "
                    "pixels that the file also holds was read."
                )
        elif page is not None and (sentence := describe_page(tiff, page)):
            self._warn(sentence)
        check_pixels(self._label, image.size, self._most)
        with image:
            return self._convert(self._loaded(stream, image), head)

    def _raw(self, stream: BinaryIO, tiff: TiffFile | None, kind: str) -> Image.Image:
        """The largest picture that the camera developed: a JPEG somewhere in the file, or a page of it."""
        page = tiff.main_page(self._most) if tiff is not None and kind == "TIFF" else None
        candidates = embedded_jpegs(stream)
        for offset, frame in candidates[:8]:
            if page is not None and page.pixels > frame.width * frame.height:
                break
            jpeg = View(stream, offset)
            try:
                image = self._open(jpeg)
                shrink_to_limit(image, jpeg, self._label, self._most, self._warn)
                image.load()
            except (SmolVLMError, OSError, ValueError, SyntaxError):
                continue  # it only looked like one
            return self._developed(stream, image)
        if page is not None and tiff is not None:
            try:
                image = self._open(at_page(stream, tiff, page))
                check_pixels(self._label, image.size, self._most)
                image.load()
                return self._developed(stream, image)
            except (ImageError, OSError):
                pass
        raise ImageError(
            f"{self._label} is a camera's raw photo ({kind}) without a developed picture in it; "
            "develop it to JPEG or TIFF first, by the camera's program, darktable or dcraw."
        )

    def _developed(self, stream: BinaryIO, image: Image.Image) -> Image.Image:
        self._warn(
            f"a camera's raw photo: the developed picture of {image.width} x {image.height} pixels inside it was read, "
            "not the sensor's values."
        )
        own = orientation_of(image)
        return self._convert(image, b"", orientation=own if own != 1 else raw_orientation(stream))

    def _tell_of_others(self, source: Source, image: Image.Image) -> None:
        """Whoever passes several pictures in one file should know that one of them was looked at."""
        with source.open() as stream:
            if is_row(stream, image.format):
                self._warn(
                    "the file holds several pictures, one behind the other, as raw MJPEG does; only the first was read. "
                    "Convert it to MP4 for all of them."
                )
        if image.format in ("GIF", "WEBP", "PNG", "AVIF") and animated_format(source):
            self._warn("an animation: only its first frame was read; pass it as a video for all of it.")
        if image.format == "MPO":
            entries = getattr(image, "mpinfo", {}).get(0xB002, [])
            if any("Multi-Frame" in str(entry.get("Attribute", {}).get("MPType")) for entry in entries):
                self._warn(f"only the first of its {len(entries)} pictures was read.")

    def _convert(self, image: Image.Image, head: bytes, *, from_file: bool = True, orientation: int | None = None) -> Image.Image:
        """Upright, 8 bits, RGB; a new picture that shares nothing with `image`."""
        try:
            deep = eight_bit(image)
            colored = to_srgb(deep, image.info.get("icc_profile"), head, self._options, self._warn)
            rgb = flatten(colored, self._options.background, from_file=from_file, on_warning=self._warn)
            turned = upright(image, rgb, orientation)
            return turned.copy() if turned is image else turned
        except SmolVLMError:
            raise
        except Exception as error:
            raise ImageError(
                f"{self._label}: a picture of mode {image.mode} cannot be converted to RGB ({one_line(error)}); "
                "save it as PNG or JPEG first."
            ) from None
