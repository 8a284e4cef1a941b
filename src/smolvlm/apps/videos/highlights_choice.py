"""The best set of moments under a budget of seconds: in order, apart from each other, no two alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

_STEP_S = 0.1  # the budget is counted in these
_MOST_STEPS = 40_000  # of longer budgets the steps grow


@dataclass(frozen=True, eq=False)
class Candidate:
    """A moment that may be taken: seconds, the probability that it is a highlight, what it shows, and features to compare by."""

    start_s: float
    end_s: float
    probability: float
    caption: str
    reason: str
    features: npt.NDArray[np.float32]

    @property
    def lasts_s(self) -> float:
        return self.end_s - self.start_s

    def to_dict(self) -> dict[str, Any]:
        """A JSON-ready form, without the features."""
        times = {"start_s": round(self.start_s, 3), "end_s": round(self.end_s, 3), "probability": round(self.probability, 4)}
        return {**times, "caption": self.caption, "why": self.reason}


def without_alike(candidates: Sequence[Candidate], alike: float, common: npt.NDArray[np.float32] | float = 0.0) -> list[Candidate]:
    """Of those whose features have a cosine over `alike`, the likeliest; in order of time.

    common: what all moments of the video share, which tells nothing and is taken off first.
    """
    if not candidates:
        return []
    rows = np.stack([candidate.features for candidate in candidates]) - common
    rows /= np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    kept: list[int] = []
    for i in sorted(range(len(candidates)), key=lambda i: -candidates[i].probability):
        if not kept or float((rows[kept] @ rows[i]).max()) <= alike:
            kept.append(i)
    return [candidates[i] for i in sorted(kept)]


def best_set(candidates: Sequence[Candidate], budget_s: float, spacing_s: float) -> list[Candidate]:
    """The candidates (in order, none overlapping) of the largest sum of probabilities whose lengths fit in `budget_s`.

    Two that are taken are `spacing_s` apart, or touch. Weighted intervals and a knapsack in one table: exact to 0.1 s a moment.
    """
    fitting = [candidate for candidate in candidates if 0 < candidate.lasts_s <= budget_s]
    step_s = max(_STEP_S, budget_s / _MOST_STEPS)
    steps = int(budget_s / step_s + 1e-9)
    best = np.zeros((len(fitting) + 1, steps + 1), np.float32)
    before = [_last_apart(fitting, i, spacing_s) for i in range(len(fitting))]
    for i, candidate in enumerate(fitting):
        cost = int(np.ceil(candidate.lasts_s / step_s - 1e-6))
        best[i + 1] = best[i]
        if cost <= steps:
            taken = best[before[i], : steps + 1 - cost] + candidate.probability
            best[i + 1, cost:] = np.maximum(best[i + 1, cost:], taken)
    chosen: list[Candidate] = []
    i, left = len(fitting), steps
    while i:
        if best[i, left] > best[i - 1, left]:
            chosen.append(fitting[i - 1])
            left -= int(np.ceil(fitting[i - 1].lasts_s / step_s - 1e-6))
            i = before[i - 1]
        else:
            i -= 1
    return chosen[::-1]


def _last_apart(candidates: Sequence[Candidate], i: int, spacing_s: float) -> int:
    """How many of the first candidates may be taken together with candidate `i`."""
    for j in range(i - 1, -1, -1):
        gap_s = candidates[i].start_s - candidates[j].end_s
        if gap_s >= spacing_s - 1e-6 or abs(gap_s) < 1e-6:
            return j + 1
    return 0
