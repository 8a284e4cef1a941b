"""A listening socket that several processes share, and that leaves new connections to the least busy of them.

The system wakes all who wait and gives the connection to anybody. Here a process that has more connections open than another
waits for a moment before it reaches for the next one: by then the other one has it, unless it hangs.
"""

from __future__ import annotations

import mmap
import select
import socket
import time
from pathlib import Path
from typing import Any

HEAD_START_S = 0.002
_ABSENT = 2**31 - 1
_BYTES = 4


class Loads:
    """How many connections each of several processes has open: one number each, in a file that all of them map."""

    def __init__(self, file: Path) -> None:
        with file.open("r+b") as stream:
            self._numbers = memoryview(mmap.mmap(stream.fileno(), 0)).cast("i")

    @staticmethod
    def create(file: Path, count: int) -> None:
        """The file for `count` processes, none of which is there yet."""
        file.write_bytes(memoryview(_ABSENT.to_bytes(_BYTES, "little") * count))

    def set(self, place: int, connections: int) -> None:
        self._numbers[place] = connections

    def leave(self, place: int) -> None:
        """The process is gone, or takes no more."""
        self._numbers[place] = _ABSENT

    def least(self) -> int:
        return min(self._numbers)


class FairSocket(socket.socket):
    """The bound socket of the open file `fileno`, for the process that has `place` in `loads`."""

    def __init__(self, fileno: int, loads: Loads, place: int) -> None:
        super().__init__(fileno=fileno)
        self._loads, self._place, self._connections = loads, place, 0
        self._pending = select.poll()
        self._pending.register(self, select.POLLIN)

    def listen(self, backlog: int = 128, /) -> None:
        self._loads.set(self._place, self._connections)
        super().listen(backlog)

    def accept(self) -> tuple[socket.socket, Any]:
        """As of a socket that does not block: raises BlockingIOError when there is nothing, or another process was quicker."""
        if self._connections > self._loads.least():
            if not self._pending.poll(0):
                raise BlockingIOError
            time.sleep(HEAD_START_S)
        accepted, address = super().accept()
        self._count(1)
        return _Counted(accepted, self), address

    def close(self) -> None:
        self._loads.leave(self._place)
        super().close()

    def _count(self, change: int) -> None:
        self._connections += change
        if self.fileno() >= 0:  # it takes more
            self._loads.set(self._place, self._connections)


class _Counted(socket.socket):
    """An accepted connection, counted until it is closed."""

    def __init__(self, accepted: socket.socket, listening: FairSocket) -> None:
        super().__init__(accepted.family, accepted.type, accepted.proto, accepted.detach())
        self._listening: FairSocket | None = listening

    def close(self) -> None:
        super().close()
        listening, self._listening = self._listening, None
        if listening is not None:
            listening._count(-1)
