"""The fonts that synthetic pictures are lettered in: sixteen, divided so that no two splits share one.

They are subsets (ASCII, pound, euro) of open fonts, renamed as their licences ask; see assets/LICENSES.md.
"""

from __future__ import annotations

import functools
from importlib import resources
from io import BytesIO

from PIL import ImageFont

from smolvlm.errors import SynthError
from smolvlm.synth.sample import Split

# Designs, not only files, are apart: a test set in a sibling of a training font would measure memory.
_FONTS: dict[Split, tuple[str, ...]] = {
    "train": (
        "01.ttf",  # Liberation Sans
        "02.ttf",  # Liberation Serif, bold
        "03.ttf",  # Liberation Mono, bold
        "04.ttf",  # Roboto, bold
        "05.ttf",  # Open Sans
        "06.ttf",  # Lato, bold
        "07.ttf",  # Noto Serif
        "08.ttf",  # Fira Code, medium
        "09.ttf",  # Play, bold
        "10.ttf",  # Comfortaa, bold
    ),
    "validation": ("11.ttf", "12.otf"),  # Caladea, Cantarell, both bold
    "test": ("13.otf", "14.otf", "15.ttf", "16.ttf"),  # Comic Neue, Courier Prime, Gentium Basic, Quicksand, all bold
}
FONTS: tuple[str, ...] = tuple(name for names in _FONTS.values() for name in names)


def fonts(split: Split) -> tuple[str, ...]:
    """Names of the fonts of one split, for `load_font`.

    Raises:
        SynthError: an unknown split.
    """
    if split not in _FONTS:
        raise SynthError(f"split={split!r} is unknown; use one of {', '.join(_FONTS)}.")
    return _FONTS[split]


@functools.cache
def _font_bytes(name: str) -> bytes:
    # Immutable package data, 7 to 21 kB a font: read once, since a generator loads fonts for every picture.
    return (resources.files("smolvlm.synth") / "assets" / "fonts" / name).read_bytes()


def load_font(name: str, size_px: int) -> ImageFont.FreeTypeFont:
    """The font at `size_px` (the em height in pixels, 1 or more).

    The basic layout engine is asked for by name: with Pillow's optional raqm the same text may be a pixel wider, and
    a sample must be the same on every machine.

    Raises:
        SynthError: an unknown name or a size below 1.
    """
    if name not in FONTS:
        raise SynthError(f"no font is called {name!r}; use one of fonts('train'), such as {FONTS[0]!r}.")
    if size_px < 1:
        raise SynthError(f"size_px={size_px} is below 1; a font needs a positive size.")
    return ImageFont.truetype(BytesIO(_font_bytes(name)), size_px, layout_engine=ImageFont.Layout.BASIC)
