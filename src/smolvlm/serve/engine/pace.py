"""How much of a new prompt is read between two decode steps, so that running answers hardly notice.

Encoding tiles and prefilling are many times as long as a decode step. Prefill can be cut anywhere, so its chunks are sized
by the clock: a gap between two tokens stays under `stall_ratio` times the step of one sequence alone. A tile cannot be cut:
while answers are being written, a prompt with pictures waits as long as a tile takes, but at most `patience_s`;
then one tile a step goes in.
"""

from __future__ import annotations

_SMOOTH = 0.2  # weight of the newest measurement
_SMALLEST_CHUNK = 16  # tokens: below it the pass over the weights costs as much as the tokens do


class Pace:
    """Measured seconds, and what follows from them. Used by the engine's thread alone."""

    def __init__(self, *, chunk: int, tiles: int, stall_ratio: float, patience_s: float) -> None:
        self._chunk, self._tiles = chunk, tiles
        self._stall_ratio, self._patience_s = stall_ratio, patience_s
        self._alone_s: float | None = None  # a decode step of one sequence
        self._step_s = 0.0  # of the current batch
        self._token_s: float | None = None  # prefill, a token
        self._tile_s: float | None = None

    def decoded(self, batch: int, seconds: float) -> None:
        """A decode step of `batch` sequences took `seconds`."""
        self._step_s = seconds if not self._step_s else _mix(self._step_s, seconds)
        if batch == 1:
            self._alone_s = _mix(self._alone_s, seconds)

    def encoded(self, tiles: int, seconds: float) -> None:
        """`tiles` were encoded in `seconds`."""
        self._tile_s = _mix(self._tile_s, seconds / tiles)

    def prefilled(self, tokens: int, seconds: float) -> None:
        """A prefill of `tokens` took `seconds`; short ones tell little and are left out."""
        if tokens >= _SMALLEST_CHUNK:
            self._token_s = _mix(self._token_s, seconds / tokens)

    def chunk(self, decoding: bool) -> int:
        """Tokens to prefill now; `decoding` says whether answers wait for it."""
        if not decoding or not self._alone_s or not self._token_s:
            return self._chunk
        room_s = self._stall_ratio * self._alone_s - self._step_s
        return max(_SMALLEST_CHUNK, min(self._chunk, int(room_s / self._token_s)))

    def tiles(self, decoding: bool, waited_s: float) -> int:
        """Tiles to encode now; 0: none, let the answers go on first."""
        if not decoding:
            return self._tiles
        patience_s = self._patience_s
        if self._tile_s is not None:
            patience_s = min(patience_s, self._tile_s)
        return 1 if waited_s >= patience_s else 0


def _mix(old: float | None, new: float) -> float:
    return new if old is None else old + _SMOOTH * (new - old)
