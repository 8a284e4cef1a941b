"""Windows that look like a picture: the features of the model's vision encoder, compared."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from smolvlm.apps.library import Library
from smolvlm.apps.videos.search import Found, Hit, SearchSettings
from smolvlm.apps.videos.stored import features_of, windows_of
from smolvlm.encoded import Encoded
from smolvlm.media import load_image

if TYPE_CHECKING:
    from smolvlm.vlm import SmolVLM


def similar(
    model: SmolVLM, library: Library, picture: str | os.PathLike[str], run_ids: Sequence[int], settings: SearchSettings | None = None
) -> Found:
    """The windows with the frame that is most like `picture`, best first. The probability is a cosine, from 0 to 1.

    Raises SourceError or ImageError for a picture that cannot be read.
    """
    settings = settings or SearchSettings()
    pixels = np.asarray(load_image(picture).convert("RGB"))
    wanted = _frames(model.encode(pixels[None], max_frames=1))[0]  # as a video of one frame: the same way to the encoder
    windows = windows_of(library, run_ids)
    if not windows:
        return Found(os.fspath(picture), (), None)
    frames = [_frames(features_of(model, library, window)) for window in windows]
    mean = np.concatenate(frames).mean(0)  # what all frames share tells nothing
    hits = []
    for window, rows in zip(windows, frames, strict=True):
        best = max(_cosine(row - mean, wanted - mean) for row in rows)
        hits.append(Hit(window, max(0.0, best), 0.0, 0.0, f"looks like it ({best:.2f})"))
    hits.sort(key=lambda hit: -hit.probability)
    good = tuple(hit for hit in hits if hit.probability >= settings.cutoff)[: settings.top]
    return Found(os.fspath(picture), good, replace(hits[0]))


def _frames(encoded: Encoded) -> npt.NDArray[np.float32]:
    """(frames, hidden): each frame's mean row."""
    mean: npt.NDArray[np.float32] = encoded.features.mean(1)
    return mean


def _cosine(left: npt.NDArray[np.float32], right: npt.NDArray[np.float32]) -> float:
    return float(left @ right / max(float(np.linalg.norm(left) * np.linalg.norm(right)), 1e-12))
