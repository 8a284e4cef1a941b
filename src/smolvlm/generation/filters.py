"""Top-k, top-p and min-p without sorting the vocabulary."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import FloatArray

_BINS = 2048
_DEEPEST = 40.0  # e**-40 = 4e-18: what lies deeper has no weight beside a float64 total of 1


def candidates(
    scaled: FloatArray, top_k: int, top_p: float, min_p: float
) -> tuple[npt.NDArray[np.intp] | None, FloatArray]:
    """The tokens that survive the filters, by rising id, and their weights (not normalised; the best has 1).

    `scaled` is (vocab,): logits less their maximum, over the temperature. Ids are None when every token survives.
    Order and ties as `transformers` has them: top-k keeps all that equal the k-th; top-p keeps a token while what is
    likelier holds less than `top_p` of what top-k left, lower ids first among equals; min-p is relative to the best.
    """
    ids: npt.NDArray[np.intp] | None = None
    if 0 < top_k < len(scaled):
        place = len(scaled) - top_k
        ids = np.flatnonzero(scaled >= np.partition(scaled, place)[place])
        scaled = scaled[ids]
    weights = np.exp(scaled)
    if top_p < 1.0:
        kept = _nucleus(scaled, weights, top_p)
        ids, scaled, weights = kept if ids is None else ids[kept], scaled[kept], weights[kept]
    if min_p > 0.0:
        kept = np.flatnonzero(scaled >= np.float32(math.log(min_p)))
        ids, weights = kept if ids is None else ids[kept], weights[kept]
    return ids, weights


def _nucleus(scaled: FloatArray, weights: FloatArray, top_p: float) -> npt.NDArray[np.intp]:
    """Indices of the smallest set of likeliest tokens that holds `top_p` of the weight.

    A histogram over the scores finds the bin in which the running weight passes `top_p`; only that bin is sorted. So
    the cost is linear also for a flat distribution, where taking ever larger heads would end in a full sort.
    """
    depth = np.minimum(-scaled, np.float32(_DEEPEST))
    bins = (depth * np.float32((_BINS - 1) / _DEEPEST)).astype(np.int32)
    mass = np.bincount(bins, weights=weights, minlength=_BINS)
    running = np.cumsum(mass)
    wanted = top_p * running[-1]
    crossing = int(np.searchsorted(running, wanted))  # first bin that reaches the wanted weight
    doubtful = np.flatnonzero(bins == crossing)
    doubtful = doubtful[np.argsort(-scaled[doubtful], kind="stable")]
    before = (running[crossing - 1] if crossing else 0.0) + np.cumsum(weights[doubtful], dtype=np.float64)
    keep = 1 + int(np.searchsorted(before, wanted))  # up to and with the token that reaches it
    kept = bins < crossing
    kept[doubtful[:keep]] = True
    return np.flatnonzero(kept)
