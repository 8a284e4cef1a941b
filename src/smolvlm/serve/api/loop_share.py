"""The event loop's time, by owner: whoever keeps it busy with bodies and refusals waits while others ask.

Everything that a request does in the loop is measured. An owner that has used more than its share goes on only when the debt is
paid off, as long as another owner is active; alone, it has the whole loop. Waiting costs nothing: what a client sends meanwhile
stays in the system's buffers, then on the client's side.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Generator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

_ALL = 0.5  # of the loop's time, for all active owners together: the rest is for the engine's thread and for answers
_FREE_S = 0.05  # debt that nobody waits for: an honest request with its pictures
_MOST_S = 0.25  # debt that is remembered
_ACTIVE_S = 2.0  # how long an owner counts after a request
_WAIT_S = 5.0  # at most, for one piece of a body
_REQUEST_S = 0.001  # for what is not measured: the head of a request
_BYTE_S = 3e-9  # and its body, on the way through the system and the HTTP parser
_MOST_COUNTED = 32  # active owners: with thousands of addresses, counting them would itself keep the loop busy
_REMEMBERED = 10_000  # owners; without keys they are addresses

T = TypeVar("T")


@dataclass
class _Owner:
    debt_s: float = 0.0
    at: float = 0.0  # when `debt_s` was right
    asked_at: float = 0.0


class LoopShare:
    """Debts of owners. Belongs to one event loop."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._owners: OrderedDict[str, _Owner] = OrderedDict()

    def request(self, name: str) -> None:
        """One more request of an owner has come."""
        self._of(name).asked_at = self._clock()
        self._owners.move_to_end(name)
        self.spent(name, _REQUEST_S)

    def received(self, name: str, size: int) -> None:
        """A piece of a body has come: `size` bytes."""
        self.spent(name, size * _BYTE_S)

    def spent(self, name: str, seconds: float) -> None:
        """The loop, or a thread that keeps it from running, worked so long for an owner."""
        owner = self._of(name)
        owner.debt_s = min(_MOST_S, owner.debt_s + seconds)

    def delay_s(self, name: str) -> float:
        """How long an owner has to wait for its next turn."""
        active = self._active(name)
        if active < 2:
            return 0.0
        return max(0.0, self._of(name).debt_s - _FREE_S) * active / _ALL

    async def turn(self, name: str) -> None:
        """Wait until an owner may go on."""
        limit = self._clock() + _WAIT_S
        while (delay_s := min(self.delay_s(name), limit - self._clock())) > 0:
            await asyncio.sleep(delay_s)

    def _of(self, name: str) -> _Owner:
        now = self._clock()
        owner = self._owners.get(name)
        if owner is None:
            owner = self._owners[name] = _Owner(at=now)
            if len(self._owners) > _REMEMBERED:
                self._owners.popitem(last=False)
        owner.debt_s = max(0.0, owner.debt_s - (now - owner.at) * _ALL / self._active(name))
        owner.at = now
        return owner

    def _active(self, name: str) -> int:
        """How many owners are active, `name` among them, up to `_MOST_COUNTED`. The latest stand last."""
        since, count = self._clock() - _ACTIVE_S, 1
        for other in reversed(self._owners):
            if self._owners[other].asked_at < since or count == _MOST_COUNTED:
                break
            count += other != name
        return count


class Measured(Generic[T]):
    """Awaits `work` and tells `spent` how many seconds of the processor each of its steps in the loop took."""

    def __init__(self, work: Coroutine[Any, Any, T], spent: Callable[[float], None]) -> None:
        self._work, self._spent = work, spent

    def __await__(self) -> Generator[Any, Any, T]:
        step: Callable[[], Any] = lambda: self._work.send(None)  # noqa: E731
        while True:
            began = time.thread_time()
            try:
                waited_for = step()
            except StopIteration as end:
                result: T = end.value
                return result
            finally:
                self._spent(time.thread_time() - began)
            try:
                yield waited_for
                step = lambda: self._work.send(None)  # noqa: E731
            except BaseException as error:
                step = lambda error=error: self._work.throw(error)  # type: ignore[misc]  # noqa: E731
