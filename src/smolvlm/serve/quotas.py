"""How often, and how much at once, one owner may ask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from smolvlm.serve.errors import busy

_REMEMBERED = 10_000  # owners; without keys they are addresses, of which there are many


@dataclass
class _Account:
    tokens: float
    updated_at: float
    running: int = 0


class Quotas:
    """A token bucket and a counter for each owner. Used by the event loop alone."""

    def __init__(self, rate: float, concurrency: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate`: requests a minute, of which a minute's worth may come at once; `concurrency`: at the same time; 0: any."""
        self._rate, self._concurrency, self._clock = rate, concurrency, clock
        self._accounts: OrderedDict[str, _Account] = OrderedDict()

    @contextmanager
    def request(self, owner: str, rate: float | None = None, concurrency: int | None = None) -> Iterator[None]:
        """Count one request while the block runs. Raises ServeError 429 with Retry-After; a refused one costs nothing."""
        rate = self._rate if rate is None else rate
        concurrency = self._concurrency if concurrency is None else concurrency
        now = self._clock()
        burst = max(1.0, rate)
        account = self._accounts.setdefault(owner, _Account(burst, now))
        self._accounts.move_to_end(owner)
        if concurrency and account.running >= concurrency:
            raise busy(
                f"this key has {account.running} requests under way, as many as it may; wait for one to end.", 1.0
            )
        if rate:
            account.tokens = min(burst, account.tokens + (now - account.updated_at) * rate / 60)
            account.updated_at = now
            if account.tokens < 1:
                wait_s = (1 - account.tokens) * 60 / rate
                raise busy(f"this key may send {rate:g} requests a minute; try again in {wait_s:.0f} seconds.", wait_s)
            account.tokens -= 1
        account.running += 1
        try:
            yield
        finally:
            account.running -= 1
            self._forget()

    def _forget(self) -> None:
        while len(self._accounts) > _REMEMBERED:
            owner, oldest = next(iter(self._accounts.items()))
            if oldest.running:
                return
            del self._accounts[owner]
