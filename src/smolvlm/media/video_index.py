"""Where every frame of a video is: the packets' timestamps, read without decoding one of them.

Reading packets costs the file's length, decoding costs hundreds of times more; with all timestamps known, "frame i"
means exactly the i-th picture in order of presentation, for constant and variable rates alike.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

MAX_PACKETS = 10_000_000  # 46 hours at 60 frames a second; the arrays of so many take 250 MB
_UNKNOWN = -(2**63)

Ticks = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """The packets of one video stream in decoding order, and the frames that they become in presentation order.

    packet_pts, packet_dts: (packets,) ticks of `time_base`; `seek_ticks` falls back to pts where dts is unknown
    packet_is_key, packet_is_discarded: (packets,); a discarded packet is decoded but not shown (edit lists)
    by_pts: (packets,) the positions that put `packet_pts` in ascending order
    frame_pts: (frames,) ascending ticks of the frames that are shown; empty when `has_timestamps` is false
    empty_packets: what the container counts as frames and holds nothing (dropped frames)
    end_s: seconds from the first shown frame to the end of the last one by the packets' own durations, None if unknown
    has_timestamps: every packet has a pts of its own, so that frames can be found by it
    cut_off: the demuxer failed, or found the last packets incomplete
    """

    packet_pts: Ticks
    packet_dts: Ticks
    packet_is_key: Flags
    packet_is_discarded: Flags
    by_pts: npt.NDArray[np.intp]
    frame_pts: Ticks
    num_frames: int
    empty_packets: int
    end_s: float | None
    time_base: Fraction
    has_timestamps: bool
    cut_off: bool

    def key_before(self, pts: int) -> int:
        """Position (decoding order) of the key packet with the largest pts <= `pts`; -1 if there is none."""
        positions, key_pts = self._keys
        at = int(np.searchsorted(key_pts, pts, side="right")) - 1
        return int(positions[at]) if at >= 0 else -1

    @cached_property
    def _keys(self) -> tuple[npt.NDArray[np.intp], Ticks]:
        """The positions of the key packets and their pts, which ascend."""
        positions = self.by_pts[self.packet_is_key[self.by_pts]]
        return positions, self.packet_pts[positions]

    def key_frames(self) -> list[int]:
        """The numbers of the shown frames whose packets are keys."""
        return [int(i) for i in np.flatnonzero(np.isin(self.frame_pts, self._keys[1]))]

    def position(self, pts: int | None) -> int:
        """Position (decoding order) of the packet with this pts, -1 if there is none."""
        if pts is None:
            return -1
        at = int(np.searchsorted(self.packet_pts, pts, sorter=self.by_pts))
        found = int(self.by_pts[at]) if at < len(self.by_pts) else -1
        return found if found >= 0 and self.packet_pts[found] == pts else -1

    def seek_ticks(self, position: int) -> int:
        dts = int(self.packet_dts[position])
        return int(self.packet_pts[position]) if dts == _UNKNOWN else dts

    def frame_seconds(self) -> npt.NDArray[np.float64]:
        """(frames,) seconds from the first frame; empty when the timestamps are unusable."""
        if not len(self.frame_pts):
            return np.empty(0)
        seconds: npt.NDArray[np.float64] = (self.frame_pts - self.frame_pts[0]) * float(self.time_base)
        return seconds

    @property
    def first_s(self) -> float:
        """Where the container's clock stands at the first frame."""
        return float(self.frame_pts[0] * self.time_base) if len(self.frame_pts) else 0.0

    def starting_at(self, pts: int) -> FrameIndex:
        """Without the frames before `pts`: their references lie before the file's start and no decoder shows them."""
        kept = self.frame_pts[self.frame_pts >= pts]
        return replace(self, frame_pts=kept, num_frames=len(kept))

    def starts_cleanly(self) -> bool:
        """Whether the first packet is a key and nothing is shown before it, so that decoding begins with frame 0."""
        return bool(self.packet_is_key[0]) and int(self.packet_pts.min()) >= int(self.packet_pts[0])


def build_index(packets: Iterable[Any], time_base: Fraction) -> FrameIndex:
    """Read all packets of a stream.

    `packets` may end in an exception of the demuxer, as on a file that is cut off: what came before it counts.
    """
    pts, dts, durations = array("q"), array("q"), array("q")
    empty = 0
    is_key, is_discarded, is_corrupt = bytearray(), bytearray(), bytearray()
    failed = False
    try:
        for packet in packets:
            if not packet.size:  # a dropped frame, or the end marker, which has no time
                empty += packet.pts is not None or packet.dts is not None
                continue
            pts.append(_UNKNOWN if packet.pts is None else packet.pts)
            dts.append(_UNKNOWN if packet.dts is None else packet.dts)
            durations.append(packet.duration or 0)
            is_key.append(packet.is_keyframe)
            is_discarded.append(packet.is_discard)
            is_corrupt.append(packet.is_corrupt)
            if len(pts) >= MAX_PACKETS:
                failed = True
                break
    except Exception:  # the demuxer's word for a damaged file; `cut_off` passes it on
        failed = True
    end = len(pts)
    while end and is_corrupt[end - 1]:
        end -= 1
    cut_off = failed or end < len(pts)
    return _index(
        _ticks(pts[:end]),
        _ticks(dts[:end]),
        _ticks(durations[:end]),
        _flags(is_key[:end]),
        _flags(is_discarded[:end]),
        empty,
        time_base,
        cut_off,
    )


def _ticks(values: array[int]) -> Ticks:
    return np.array(values, np.int64)


def _flags(values: bytearray) -> Flags:
    return np.frombuffer(bytes(values), np.bool_)


def _index(
    pts: Ticks, dts: Ticks, durations: Ticks, is_key: Flags, is_discarded: Flags, empty: int, time_base: Fraction, cut_off: bool
) -> FrameIndex:
    shown = np.sort(pts[~is_discarded])
    has_timestamps = bool(len(pts) and is_key.any() and (pts != _UNKNOWN).all() and len(np.unique(pts)) == len(pts) and len(shown))
    by_pts = np.argsort(pts, kind="stable")
    frame_pts = shown if has_timestamps else np.empty(0, np.int64)
    last = int(by_pts[-1]) if len(pts) else 0
    end_s = float((pts[last] + durations[last] - shown[0]) * time_base) if has_timestamps and durations[last] > 0 else None
    return FrameIndex(pts, dts, is_key, is_discarded, by_pts, frame_pts, len(shown), empty, end_s, time_base, has_timestamps, cut_off)
