"""How many bytes of requests' bodies are held at the same time, over all connections and by one owner."""

from __future__ import annotations

from collections import Counter

from smolvlm.serve.errors import busy

_SHARE = 0.5  # of the whole, for one owner: others still get theirs


class BodyBudget:
    """Counts bytes in as they come and out when nothing holds them any more. Used by the event loop alone."""

    def __init__(self, max_bytes: int, max_body_bytes: int) -> None:
        """A body of `max_body_bytes` always fits, if nothing else is there."""
        self._max_bytes = max(max_bytes, max_body_bytes)
        self._share_bytes = max(int(_SHARE * self._max_bytes), max_body_bytes)
        self._held: Counter[str] = Counter()
        self.total = 0

    def take(self, owner: str, count: int) -> None:
        """`count` more bytes have come. Raises ServeError 429; these are not counted then."""
        if self.total + count > self._max_bytes:
            raise busy("the requests that are coming in hold as much memory as they may; try again later.", 2.0, "bodies_full")
        if self._held[owner] + count > self._share_bytes:
            raise busy(
                "the requests of this key that are coming in hold as much memory as they may; send fewer at once.", 2.0, "bodies_full"
            )
        self.total += count
        self._held[owner] += count

    def give(self, owner: str, count: int) -> None:
        """`count` bytes are gone."""
        self.total -= count
        self._held[owner] -= count
        if not self._held[owner]:
            del self._held[owner]
