"""A queue that takes turns between owners: who sends much waits for itself, not others for them."""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Collection
from typing import Generic, Protocol, TypeVar


class Owned(Protocol):
    @property
    def owner(self) -> str: ...


T = TypeVar("T", bound=Owned)


class FairQueue(Generic[T]):
    """First come, first served within an owner; owners in turn. Not thread-safe: the scheduler holds a lock."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, deque[T]] = OrderedDict()
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def push(self, item: T) -> None:
        """Add `item` at the end of its owner's line."""
        self._lines.setdefault(item.owner, deque()).append(item)
        self._size += 1

    def peek(self, but: Collection[str] = ()) -> T | None:
        """The item whose turn it is among owners that are not in `but`."""
        owner = self._next(but)
        return None if owner is None else self._lines[owner][0]

    def pop(self, but: Collection[str] = ()) -> T:
        """Take the item that `peek` shows; its owner goes to the end of the round. Raises IndexError without one."""
        owner = self._next(but)
        if owner is None:
            raise IndexError("pop from an empty queue")
        line = self._lines[owner]
        item = line.popleft()
        self._size -= 1
        del self._lines[owner]
        if line:
            self._lines[owner] = line
        return item

    def _next(self, but: Collection[str]) -> str | None:
        return next((owner for owner in self._lines if owner not in but), None)

    def remove_if(self, condition: Callable[[T], bool]) -> list[T]:
        """Take out every item that meets `condition`; the turns of the others stay."""
        removed: list[T] = []
        for owner in list(self._lines):
            kept: deque[T] = deque()
            for item in self._lines[owner]:
                (removed if condition(item) else kept).append(item)
            if kept:
                self._lines[owner] = kept
            else:
                del self._lines[owner]
        self._size -= len(removed)
        return removed
