"""A lock for whole calls of an engine: threads get it in the order in which they came."""

from __future__ import annotations

import threading
from collections import deque


class Turns:
    """A context manager. `taken`: whether a thread is inside; after a fork, whether one was inside at that moment."""

    def __init__(self) -> None:
        self.taken = False
        self._mutex = threading.Lock()
        self._waiting: deque[threading.Lock] = deque()  # one a thread, locked until it is that thread's turn

    def __enter__(self) -> None:
        with self._mutex:
            if not self.taken:
                self.taken = True
                return
            mine = threading.Lock()
            mine.acquire()
            self._waiting.append(mine)
        try:
            mine.acquire()
        except BaseException:  # Ctrl-C while waiting
            with self._mutex:
                waiting = mine in self._waiting
                if waiting:
                    self._waiting.remove(mine)
            if not waiting:
                self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        with self._mutex:
            if self._waiting:
                self._waiting.popleft().release()
            else:
                self.taken = False
