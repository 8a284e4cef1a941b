"""Which packets of a piece are copied and which frames are encoded anew, by the index alone.

A copied run begins and ends at key frames that nothing reaches across: all packets before in the file are shown before, all after
are shown after. What is left at either edge of a piece, less than one group of pictures, is encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from smolvlm.errors import ParamsError
from smolvlm.media.video_index import FrameIndex


@dataclass(frozen=True)
class Piece:
    """A span of a video, seconds from its first frame: the frames that begin in `start_s`..`end_s`, the end not included."""

    start_s: float
    end_s: float


@dataclass(frozen=True)
class Run:
    """The frames `first`..`stop`, the end not included; `packets` are the positions that are copied, None if they are encoded."""

    first: int
    stop: int
    packets: tuple[int, int] | None = None


@dataclass(frozen=True)
class PlannedPiece:
    """The frames of a piece, in runs. `reason`: why nothing of it is copied; "" where something is, or where nothing could be gained."""

    first: int
    stop: int
    runs: tuple[Run, ...]
    reason: str = ""


class Planner:
    """Plans pieces of one video. `stands_alone(position)` reads a key packet and says whether decoding can begin there."""

    def __init__(self, index: FrameIndex, end_ticks: int, stands_alone: Callable[[int], bool], unsafe: str = "") -> None:
        self._index, self._stands_alone, self._unsafe = index, stands_alone, unsafe
        self.ticks: npt.NDArray[np.int64] = np.append(index.frame_pts, max(end_ticks, int(index.frame_pts[-1]) + 1))

    def plan(self, piece: Piece) -> PlannedPiece:
        """Raises ParamsError for a piece without a frame."""
        first, stop = self._frame_at(piece.start_s), self._frame_at(piece.end_s)
        if not stop > first:
            span = f"{piece.start_s:g}..{piece.end_s:g} s"
            raise ParamsError(f"the piece {span} holds no frame; pieces end after they start, within the video.")
        if self._unsafe:
            return PlannedPiece(first, stop, (Run(first, stop),), self._unsafe)
        keys = self._copied(first, stop)
        if keys is None:
            return PlannedPiece(first, stop, (Run(first, stop),), self._why_not(first, stop))
        begin, end = keys
        a, b = (int(np.searchsorted(self._index.frame_pts, self._pts(key))) for key in keys)
        runs = (Run(first, a), Run(a, b, (begin, end)), Run(b, stop))
        return PlannedPiece(first, stop, tuple(run for run in runs if run.stop > run.first))

    def _frame_at(self, seconds: float) -> int:
        """The frame that begins nearest to a time; the number of frames for the end."""
        wanted = float(seconds / self._index.time_base) + int(self.ticks[0])
        at = int(np.searchsorted(self.ticks, wanted))
        if at == 0 or at == len(self.ticks):
            return min(at, len(self.ticks) - 1)
        return at if self.ticks[at] - wanted <= wanted - self.ticks[at - 1] else at - 1

    def _pts(self, key: int) -> int:
        return int(self._index.packet_pts[key]) if key < len(self._index.packet_pts) else int(self.ticks[-1])

    def _copied(self, first: int, stop: int) -> tuple[int, int] | None:
        """The positions of the first packet to copy and of the first one after them."""
        inside = [k for k in self._clean if self.ticks[first] <= self._pts(k) <= self.ticks[stop]]
        while inside and not self._is_end(inside[0]) and not self._stands_alone(inside[0]):
            del inside[0]
        while inside and not self._is_end(inside[-1]) and not self._stands_alone(inside[-1]):
            del inside[-1]
        if len(inside) < 2:
            return None
        begin, end = inside[0], inside[-1]
        return None if self._index.packet_is_discarded[begin:end].any() else (begin, end)

    def _is_end(self, key: int) -> bool:
        return key == len(self._index.packet_pts)

    @cached_property
    def _clean(self) -> list[int]:
        """Positions of key packets that no packet is shown across; the end of the file is one, too."""
        pts = self._index.packet_pts
        before = np.concatenate([[np.iinfo(np.int64).min], np.maximum.accumulate(pts)[:-1]])
        after = np.minimum.accumulate(pts[::-1])[::-1]
        clean = self._index.packet_is_key & (before < pts) & (after >= pts)
        return [*map(int, np.flatnonzero(clean)), len(pts)]

    def _why_not(self, first: int, stop: int) -> str:
        pts, is_key = self._index.packet_pts, self._index.packet_is_key
        if np.count_nonzero(is_key & (pts >= self.ticks[first]) & (pts < self.ticks[stop])) < 2:
            return ""  # no whole group of pictures lies in it
        return "its groups of pictures are open (frames beside a key frame need others on its far side)"

    def delay_ticks(self, planned: Sequence[PlannedPiece], times: npt.NDArray[np.int64]) -> int:
        """By how much every packet must be decoded before the n-th picture is shown, so that one rule gives all decoding times.

        times: (frames,) when each is shown.
        """
        most = 0
        for run in (run for piece in planned for run in piece.runs if run.packets):
            begin, end = run.packets or (0, 0)
            numbers = np.searchsorted(self._index.frame_pts, self._index.packet_pts[begin:end])
            most = max(most, int((times[run.first : run.stop] - times[numbers]).max()))
        return most


def check_order(index: FrameIndex) -> str:
    """Why the packets of a file cannot be copied by their times; "" where they can."""
    dts = index.packet_dts
    known = dts != np.iinfo(np.int64).min
    if not bool((np.diff(dts[known]) > 0).all()):
        return "its decoding times do not ascend"
    if bool((dts[known] > index.packet_pts[known]).any()):
        return "some frames are to be decoded after they are shown"
    return ""
