"""Pictures beyond the pixel limit, of formats that can be decoded at a part of their size: JPEG and JPEG 2000.

Phones take photos of 108 and 200 million pixels; the model sees at most a few million. A JPEG's blocks of 8 x 8 can be
decoded as 4 x 4, 2 x 2 or 1, so memory never holds the whole. Below the limit nothing is reduced: the official processor
decodes whole pictures, and ours equals it.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from PIL import Image

from smolvlm.media.jpeg_frame import read_frame
from smolvlm.media.opening import check_pixels
from smolvlm.options.media import OnWarning

_STEPS = (2, 4)
_MOST_TIMES = 10  # as many limits may a whole picture have: decoding takes time also where it takes no memory
_BYTES_A_PIXEL = 8  # of the limit; a progressive JPEG is held as coefficients before it is reduced


def shrink_to_limit(image: Image.Image, stream: BinaryIO, label: str, most: int, on_warning: OnWarning) -> None:
    """Set a lazily opened `image` to be decoded at a half or a quarter, whichever fits in `most` pixels.

    Raises ImageError where that is impossible or would cost too much memory or time.
    """
    width, height = image.size
    if width * height <= most:
        check_pixels(label, image.size, most)
        return
    step = next((s for s in _STEPS if -(-width // s) * -(-height // s) <= most), None)
    if step is None or width * height > _MOST_TIMES * most or not _reduce(image, stream, step, most):
        check_pixels(label, (width, height), most)
    on_warning(
        f"its {width} x {height} pixels are more than the limit of {most}; it was decoded at 1/{step} of its size "
        "(max_pixels raises the limit)."
    )


def _reduce(image: Any, stream: BinaryIO, step: int, most: int) -> bool:
    width, height = image.size
    if image.format in ("JPEG", "MPO"):
        frame = read_frame(stream)
        if frame is None or frame.coefficient_bytes > _BYTES_A_PIXEL * most:
            return False
        image.draft(None, (width // step, height // step))
        return bool(image.width * image.height <= most)
    if image.format == "JPEG2000":
        image.reduce = step.bit_length() - 1
        return True
    return False
