"""HTTP/1.1 as uvicorn speaks it, with patience that ends: for heads that never come, and for answers that nobody reads."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from uvicorn.protocols.http.h11_impl import H11Protocol


class PatientProtocol(H11Protocol):
    """uvicorn limits how long an answered connection may be idle, not how long a head may take to come, nor how long a
    client may leave its answer unread. `unread_timeout_s` is the time in which a full buffer must be taken."""

    head_timeout_s: ClassVar[float] = 10.0
    unread_timeout_s: ClassVar[float] = 60.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._late: asyncio.TimerHandle | None = self._timer()
        self._unread: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        awaiting_head = self.cycle is None or self.cycle.response_complete
        if awaiting_head and self._late is None:
            self._late = self._timer()
        elif not awaiting_head:
            self._stop()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        self._stop_unread()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        """The buffer is full. A transport that is closed would wait for it to be read, for ever; so it is aborted."""
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.unread_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop_unread()
        super().resume_writing()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _timer(self) -> asyncio.TimerHandle:
        return self.loop.call_later(self.head_timeout_s, self._give_up)

    def _give_up(self) -> None:
        self._late = None
        if self.cycle is None or self.cycle.response_complete:
            self.transport.close()

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def protocol(head_timeout_s: float) -> type[PatientProtocol]:
    """The class that uvicorn makes one of for each connection."""
    made: Any = type("Protocol", (PatientProtocol,), {"head_timeout_s": head_timeout_s})
    cls: type[PatientProtocol] = made
    return cls
