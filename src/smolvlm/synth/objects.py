"""Small pictures of everyday objects, cut from one atlas inside the package.

They are symbols of Noto Color Emoji, rendered once by `tools/make_synth_assets.py`; see assets/LICENSES.md.
"""

from __future__ import annotations

import functools
import json
from importlib import resources

from PIL import Image

from smolvlm.errors import SynthError

_ASSETS = resources.files("smolvlm.synth") / "assets"
_TABLE = json.loads((_ASSETS / "objects.json").read_text(encoding="utf-8"))

OBJECTS: tuple[str, ...] = tuple(_TABLE["names"])
"""All objects, the most recognizable and most different from each other first."""
SMALL_OBJECTS: tuple[str, ...] = OBJECTS[:30]
SPRITE_PX: int = _TABLE["sprite_px"]
"""Side of a sprite in the atlas; draw smaller than this, or edges get soft."""


@functools.cache
def _atlas() -> Image.Image:
    # Immutable package data, decoded on first use: nobody outside this file sees the picture, only copies of its parts.
    with (_ASSETS / "objects.png").open("rb") as file, Image.open(file) as picture:
        return picture.convert("RGBA")


def sprite(name: str) -> Image.Image:
    """A fresh RGBA picture of `name`, (SPRITE_PX, SPRITE_PX): the object fills the square in one direction at least.

    Raises:
        SynthError: `name` is none of OBJECTS.
    """
    if name not in OBJECTS:
        raise SynthError(f"no object is called {name!r}; smolvlm.synth.objects.OBJECTS lists the {len(OBJECTS)} names.")
    row, column = divmod(OBJECTS.index(name), _TABLE["columns"])
    left, top = column * SPRITE_PX, row * SPRITE_PX
    return _atlas().crop((left, top, left + SPRITE_PX, top + SPRITE_PX))
