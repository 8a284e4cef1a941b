"""A number of places that owners take turns at: who asks for much waits for itself, and one place is kept for the others."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from dataclasses import dataclass, field

_REMEMBERED = 10_000  # owners; without keys they are addresses, of which there are many


class LineFullError(Exception):
    """The owner has as many jobs waiting as it may. A signal inside this package."""


@dataclass(eq=False)
class _Owner:
    """`finish`: the work that was done for the owner, on the clock of the fair queue; `holding`: its places."""

    finish: float
    holding: int = 0
    line: deque[tuple[asyncio.Future[None], float]] = field(default_factory=deque)


class FairSlots:
    """`count` places, of which one owner holds at most all but one. Belongs to one event loop.

    Start-time fair queueing: among the owners that wait and may have one more place, the one with the least work behind
    it is next. An owner that comes back after a pause starts level with the others, neither richer nor poorer.
    """

    def __init__(self, count: int, max_waiting: int) -> None:
        """`max_waiting`: jobs of one owner that may wait."""
        self._free, self._max_waiting = count, max_waiting
        self._per_owner = max(1, count - 1)
        self._owners: OrderedDict[str, _Owner] = OrderedDict()
        self._now = 0.0

    async def take(self, name: str, cost: float, patience_s: float) -> None:
        """Wait for a place. `cost` is the work to expect. Raises LineFullError, or TimeoutError after `patience_s`."""
        owner = self._owners.setdefault(name, _Owner(self._now))
        self._owners.move_to_end(name)
        if len(owner.line) >= self._max_waiting:
            raise LineFullError
        if not owner.line and not owner.holding:
            owner.finish = max(owner.finish, self._now)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        owner.line.append((turn, cost))
        self._hand_out()
        try:
            await asyncio.wait({turn}, timeout=patience_s)
        except BaseException:
            if turn.done():
                self.give_back(name, -cost)
            raise
        finally:
            if not turn.done():
                owner.line.remove((turn, cost))
        if not turn.done():
            raise TimeoutError

    def give_back(self, name: str, extra: float) -> None:
        """End a place's use; `extra` is what the work cost beyond the `cost` it was taken for, negative for less."""
        owner = self._owners[name]
        owner.holding -= 1
        owner.finish += extra
        self._free += 1
        self._hand_out()
        self._forget()

    def _hand_out(self) -> None:
        while self._free:
            able = [owner for owner in self._owners.values() if owner.line and owner.holding < self._per_owner]
            if not able:
                return
            owner = min(able, key=lambda each: each.finish)
            turn, cost = owner.line.popleft()
            self._now = max(self._now, owner.finish)
            owner.finish += cost
            owner.holding += 1
            self._free -= 1
            turn.set_result(None)

    def _forget(self) -> None:
        """Owners that are idle and level with the others are as good as new; beyond a number, the idle ones go too."""
        for name in [n for n, o in self._owners.items() if not o.line and not o.holding and o.finish <= self._now]:
            del self._owners[name]
        idle = [name for name, owner in self._owners.items() if not owner.line and not owner.holding]
        for name in idle[: max(0, len(self._owners) - _REMEMBERED)]:
            del self._owners[name]
