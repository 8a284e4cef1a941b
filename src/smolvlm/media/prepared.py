"""One picture or video ready for the prompt: its tiles, and what became of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class MediaInfo:
    """What became of one picture or video. `rows` and `cols` are 0 for what was not split; times in seconds.

    `warnings` are sentences for whoever asked, such as that only the first frame of an animation was used. `looks_drawn`
    is told for a model that knows drawn scenes only.
    """

    kind: Literal["image", "video"]
    label: str
    tile_count: int
    rows: int = 0
    cols: int = 0
    timestamps_s: tuple[float, ...] = ()
    duration_s: float | None = None
    decoded_frames: int = 0
    warnings: tuple[str, ...] = ()
    looks_drawn: bool | None = None

    @property
    def sentences(self) -> tuple[str, ...]:
        """The warnings with the medium's label before each."""
        return tuple(f"{self.label}: {sentence}" for sentence in self.warnings)


@dataclass(frozen=True, eq=False)
class PreparedMedia:
    """One picture or video ready for the prompt: `tiles` is uint8 (tile_count, side, side, 3)."""

    info: MediaInfo
    tiles: npt.NDArray[np.uint8]
