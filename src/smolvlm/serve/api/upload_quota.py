"""How much of the upload store one owner may take, counted while uploads come in."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from smolvlm.serve.errors import ServeError, busy


class Kept(Protocol):
    """An upload that is stored."""

    @property
    def owner(self) -> str: ...
    @property
    def bytes(self) -> int: ...


@dataclass(eq=False)
class Reservation:
    """An upload that is coming in: `bytes` is what was promised for it, or what has come where that is more."""

    owner: str
    bytes: int


class UploadQuota:
    """Room for `max_bytes` in `max_files` uploads, of which one owner has at most `share` of what the others leave.

    With a share below 1 there is always room for one more owner: one alone has half of all, two have a third each.
    What comes in counts from its first byte, so that uploads at the same time cannot pass the limits together.
    """

    def __init__(self, max_bytes: int, max_files: int, share: float, kept: Callable[[], Iterable[Kept]]) -> None:
        self._max_bytes, self._max_files, self._share, self._kept = max_bytes, max_files, share, kept
        self._coming: set[Reservation] = set()

    @contextlib.contextmanager
    def reservation(self, owner: str, promised: int = 0) -> Iterator[Reservation]:
        """Room for one upload while the block runs. Raises ServeError 429, as `grow` does."""
        coming = Reservation(owner, promised)
        self._coming.add(coming)
        try:
            self._check(coming)
            yield coming
        finally:
            self._coming.discard(coming)

    def grow(self, coming: Reservation, size: int) -> None:
        """So many bytes have come in all. Raises ServeError 429 when there is no room for them."""
        if size > coming.bytes:
            coming.bytes = size
            self._check(coming)

    def _check(self, coming: Reservation) -> None:
        """Raise ServeError unless everything that is kept and comes in fits, this one included."""
        all_files = all_bytes = own_files = own_bytes = 0
        for each in (*self._kept(), *self._coming):
            all_files, all_bytes = all_files + 1, all_bytes + each.bytes
            if each.owner == coming.owner:
                own_files, own_bytes = own_files + 1, own_bytes + each.bytes
        if all_files > self._max_files:
            raise _full(f"{all_files - 1} uploads are kept here already")
        if all_bytes > self._max_bytes:
            raise _full("the space for uploads is used up")
        files = max(1, int(self._share * (self._max_files - (all_files - own_files))))
        if own_files > files:
            raise _full(f"this key keeps {own_files - 1} uploads here, and may keep {files}")
        room = int(self._share * (self._max_bytes - (all_bytes - own_bytes)))
        if own_bytes > room:
            raise _full(f"with this upload, this key would keep {own_bytes} bytes here; it may keep {room}")


def _full(what: str) -> ServeError:
    return busy(f"{what}; delete files that are no longer needed.", 60, "storage_full")
