"""The seeds: which sample has which number. The same version, split, name and index are the same picture everywhere."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from typing import TypeAlias

import numpy as np

from smolvlm.errors import ConfigError
from smolvlm.synth.charts import draw_chart
from smolvlm.synth.clips import draw_clip
from smolvlm.synth.documents import draw_invoice, draw_note, draw_receipt
from smolvlm.synth.pairs import draw_pair
from smolvlm.synth.parts import draw_part
from smolvlm.synth.room_clips import draw_room_clip
from smolvlm.synth.rooms import draw_room
from smolvlm.synth.sample import SPLITS, Sample, Split
from smolvlm.synth.scenes import draw_scene
from smolvlm.synth.world import SMALL, World
from smolvlm.synth.writing import draw_writing

VERSION = 1  # raised whenever a generator draws something else for the same seed

Generator: TypeAlias = Callable[[np.random.Generator, World, Split], Sample]

GENERATORS: dict[str, Generator] = {
    "scene": draw_scene,
    "writing": draw_writing,
    "clip": draw_clip,
    "pair": draw_pair,
    "invoice": draw_invoice,
    "receipt": draw_receipt,
    "note": draw_note,
    "chart": draw_chart,
    "part": draw_part,
    "room": draw_room,
    "room_clip": draw_room_clip,
}


def generate(name: str, split: Split, index: int, world: World = SMALL) -> Sample:
    """Sample number `index` (from 0) of a generator. Raises ConfigError for an unknown generator or split."""
    if name not in GENERATORS:
        raise ConfigError(f"no generator is called {name!r}; there are {', '.join(GENERATORS)}.")
    if split not in SPLITS:
        raise ConfigError(f"no split is called {split!r}; there are {', '.join(SPLITS)}.")
    rng = np.random.default_rng([VERSION, SPLITS.index(split), zlib.crc32(name.encode()), index])
    return GENERATORS[name](rng, world, split)
