"""How often, and how much at once, one owner may ask."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from smolvlm.serve.errors import busy

REMEMBERED = 10_000  # owners; without keys they are addresses, of which there are many


@dataclass
class Account:
    """What one owner has left: `tokens` of a bucket as of `updated_at`, and `running` requests."""

    tokens: float
    updated_at: float
    running: int = 0

    def admit(self, rate: float, concurrency: int, now: float) -> None:
        """Count one request in. Raises ServeError 429 with Retry-After; a refused one costs nothing."""
        if concurrency and self.running >= concurrency:
            raise busy(f"this key has {self.running} requests under way, as many as it may; wait for one to end.", 1.0)
        if rate:
            self.tokens = min(burst(rate), self.tokens + (now - self.updated_at) * rate / 60)
            self.updated_at = now
            if self.tokens < 1:
                wait_s = (1 - self.tokens) * 60 / rate
                raise busy(f"this key may send {rate:g} requests a minute; try again in {wait_s:.0f} seconds.", wait_s)
            self.tokens -= 1
        self.running += 1


def burst(rate: float) -> float:
    """How many requests may come at once."""
    return max(1.0, rate)


class Quotas:
    """A token bucket and a counter for each owner. Used by the event loop alone."""

    def __init__(self, rate: float, concurrency: int, clock: Callable[[], float] = time.monotonic) -> None:
        """`rate`: requests a minute, of which a minute's worth may come at once; `concurrency`: at the same time; 0: any."""
        self._rate, self._concurrency, self._clock = rate, concurrency, clock
        self._accounts: OrderedDict[str, Account] = OrderedDict()

    @contextmanager
    def request(self, owner: str, rate: float | None = None, concurrency: int | None = None) -> Iterator[None]:
        """Count one request while the block runs. Raises what `Account.admit` raises."""
        rate = self._rate if rate is None else rate
        concurrency = self._concurrency if concurrency is None else concurrency
        if not rate and not concurrency:
            yield
            return
        with self._account(owner, burst(rate)) as account:
            account.admit(rate, concurrency, self._clock())
        try:
            yield
        finally:
            with self._account(owner, burst(rate)) as account:
                account.running -= 1

    @contextmanager
    def _account(self, owner: str, tokens: float) -> Iterator[Account]:
        """The owner's account, to be changed while the block runs; a new one has `tokens`."""
        account = self._accounts.setdefault(owner, Account(tokens, self._clock()))
        self._accounts.move_to_end(owner)
        try:
            yield account
        finally:
            self._forget()

    def _forget(self) -> None:
        while len(self._accounts) > REMEMBERED:
            owner, oldest = next(iter(self._accounts.items()))
            if oldest.running:
                return
            del self._accounts[owner]
