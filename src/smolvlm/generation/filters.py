"""Top-k, top-p and min-p without sorting the vocabulary."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from smolvlm.engines.base import FloatArray

_BLOCK = 256
_SORTED = 4096  # as many scores are sorted outright
_BINS = 2048
_DEEPEST = 40.0  # e**-40 = 4e-18: what lies deeper has no weight beside a float64 total of 1


def candidates(scaled: FloatArray, top_k: int, top_p: float, min_p: float) -> tuple[npt.NDArray[np.intp] | None, FloatArray]:
    """The tokens that survive the filters, by rising id, and their weights (not normalized; the best has 1).

    `scaled` is (vocab,): logits less their maximum, over the temperature. Ids are None when every token survives.
    Order and ties as `transformers` has them: top-k keeps all that equal the k-th; top-p keeps a token while what is
    likelier holds less than `top_p` of what top-k left, lower ids first among equals; min-p is relative to the best.
    """
    ids: npt.NDArray[np.intp] | None = None
    if 0 < top_k < len(scaled):
        place = len(scaled) - top_k
        ids = np.flatnonzero(scaled >= np.partition(scaled, place)[place])
        scaled = scaled[ids]
    weights: FloatArray | None = None
    if top_p < 1.0:
        weights = np.exp(scaled)
        kept = _nucleus(scaled, weights, top_p)
        ids, scaled, weights = kept if ids is None else ids[kept], scaled[kept], weights[kept]
    if min_p > 0.0:
        kept = np.flatnonzero(scaled >= np.float32(math.log(min_p)))
        ids, scaled = kept if ids is None else ids[kept], scaled[kept]
        weights = None if weights is None else weights[kept]
    return ids, np.exp(scaled) if weights is None else weights


def draw(scaled: FloatArray, top_k: int, top_p: float, min_p: float, random: Callable[[], float]) -> int:
    """A token drawn from what `candidates` leaves, by its weight; `random` gives numbers from 0 to 1.

    Where nothing but top-k is wanted, or top-k leaves little, that is done as it is said. Else the nucleus is not worked out
    at all: a token drawn from the whole vocabulary is in it exactly if what is likelier holds less than `top_p`, which is one
    sum; if not, neither is anything less likely, and the rest is drawn from again. 90 us instead of 400 for a flat row.
    """
    if 0 < top_k < len(scaled) or (top_p >= 1.0 and min_p <= 0.0):
        ids, weights = candidates(scaled, top_k, top_p, min_p)
        index = pick(weights, random())
        return index if ids is None else int(ids[index])
    weights = np.exp(scaled)
    if top_p >= 1.0:
        weights *= scaled >= np.float32(math.log(min_p))
        return pick(weights, random())
    running = _running(weights)
    wanted = top_p * float(running[-1])
    if min_p > 0.0:
        weights *= scaled >= np.float32(math.log(min_p))
        running = _running(weights)
    while True:
        index = _pick(weights, running, random())
        likelier = weights * (scaled > scaled[index])
        equal = scaled[:index] == scaled[index]
        before = np.count_nonzero(equal) * float(weights[index])
        mass = before + float(likelier.sum())
        if abs(mass - wanted) < 1e-4 * wanted:  # too close for a sum in float32, which costs a third
            mass = before + float(likelier.sum(dtype=np.float64))
        if mass < wanted:
            return index
        likelier[:index] += weights[:index] * equal
        weights, running = likelier, _running(likelier)


def pick(weights: FloatArray, share: float) -> int:
    """The first index whose running weight exceeds `share` (0 to 1) of the total; never one of weight 0."""
    return _pick(weights, _running(weights), share)


def _running(weights: FloatArray) -> npt.NDArray[np.float64]:
    """The running weight after each block: over the whole vocabulary it would cost ten times as much."""
    return np.cumsum(np.add.reduceat(weights, np.arange(0, len(weights), _BLOCK), dtype=np.float64))


def _pick(weights: FloatArray, running: npt.NDArray[np.float64], share: float) -> int:
    target = share * running[-1]
    block = min(int(np.searchsorted(running, target, side="right")), len(running) - 1)
    first = block * _BLOCK
    inside = np.cumsum(weights[first : first + _BLOCK], dtype=np.float64)
    inside += running[block - 1] if block else 0.0
    index = first + min(int(np.searchsorted(inside, target, side="right")), len(inside) - 1)
    while index and weights[index] == 0:  # only rounding at the far end can land on an impossible token
        index -= 1
    return index


def _nucleus(scaled: FloatArray, weights: FloatArray, top_p: float) -> npt.NDArray[np.intp]:
    """Indices, rising, of the smallest set of likeliest tokens that holds `top_p` of the weight.

    All tokens lighter than an even share of what may be dropped are too light together to be needed: of a peaked
    distribution that leaves few, and they are sorted. Of a flat one it leaves thousands: see `_nucleus_by_bins`.
    """
    total = float(weights.sum(dtype=np.float64))
    near = np.flatnonzero(weights >= (1.0 - top_p) * total / len(weights))
    if len(near) > _SORTED:
        kept = _nucleus_by_bins(scaled[near], weights[near], top_p * total)
    else:
        order = np.argsort(-scaled[near], kind="stable")
        running = np.cumsum(weights[near][order], dtype=np.float64)
        kept = np.sort(order[: 1 + int(np.searchsorted(running, top_p * total))])
    return near[kept]


def _nucleus_by_bins(scaled: FloatArray, weights: FloatArray, wanted: float) -> npt.NDArray[np.intp]:
    """Indices, rising, of the smallest set of likeliest tokens that holds the weight `wanted`.

    A histogram over the scores finds the bin in which the running weight passes it; only that bin is sorted, so that the
    cost is linear.
    """
    depth = np.minimum(-scaled, np.float32(_DEEPEST))
    bins = (depth * np.float32((_BINS - 1) / max(float(depth.max()), 1e-30))).astype(np.int32)
    running = np.cumsum(np.bincount(bins, weights=weights, minlength=_BINS))
    crossing = min(int(np.searchsorted(running, wanted)), _BINS - 1)  # first bin that reaches the wanted weight
    doubtful = np.flatnonzero(bins == crossing)
    doubtful = doubtful[np.argsort(-scaled[doubtful], kind="stable")]
    before = (running[crossing - 1] if crossing else 0.0) + np.cumsum(weights[doubtful], dtype=np.float64)
    keep = 1 + int(np.searchsorted(before, wanted))  # up to and with the token that reaches it
    kept = bins < crossing
    kept[doubtful[:keep]] = True
    return np.flatnonzero(kept)
