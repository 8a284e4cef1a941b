"""Quotas that hold for several server processes together: an owner's account lies in a file, and is changed under its lock."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from smolvlm.serve.quotas import REMEMBERED, Account, Quotas

_FILES = 256  # owners are spread over so many, for short files and short waits


@dataclass
class _Entry:
    """An account as it is written down: who of the processes has how many requests under way."""

    tokens: float
    updated_at: float
    running: dict[str, int] = field(default_factory=dict)


class SharedQuotas(Quotas):
    """The quotas of one worker. The clock is the system's own, which all processes share.

    A full disk makes limits lapse for as long as it lasts; it does not end the service.
    """

    def __init__(self, rate: float, concurrency: int, folder: Path) -> None:
        super().__init__(rate, concurrency)
        self._folder = folder

    @contextmanager
    def _account(self, owner: str, tokens: float) -> Iterator[Account]:
        name = hashlib.sha256(owner.encode("utf-8", "surrogatepass")).hexdigest()
        try:
            path = self._folder / f"{int(name[:8], 16) % _FILES:02x}"
            file = path.open("a+b", buffering=0)  # closing must not try again to write what the disk refused
        except OSError:
            yield Account(tokens, self._clock())
            return
        with file:
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed, also by a death
            entries = _read(file)
            entry = entries.pop(name, None) or _Entry(tokens, self._clock())
            running = {pid: count for pid, count in entry.running.items() if count and _lives(int(pid))}
            account = Account(entry.tokens, entry.updated_at, sum(running.values()))
            before, me = account.running, str(os.getpid())
            try:
                yield account
            finally:
                running[me] = max(0, running.get(me, 0) + account.running - before)
                entries[name] = _Entry(account.tokens, account.updated_at, running)  # the youngest is the last
                with contextlib.suppress(OSError):
                    _write(file, entries)


def _read(file: BinaryIO) -> dict[str, _Entry]:
    file.seek(0)
    try:
        return {name: _Entry(*values) for name, values in json.loads(file.read() or b"{}").items()}
    except ValueError:  # whoever wrote it was killed half-way
        return {}


def _write(file: BinaryIO, entries: dict[str, _Entry]) -> None:
    idle = [name for name, entry in entries.items() if not any(entry.running.values())]
    for name in idle[: max(0, len(entries) - REMEMBERED // _FILES)]:
        del entries[name]
    file.truncate(0)
    file.write(json.dumps({name: [e.tokens, e.updated_at, e.running] for name, e in entries.items()}).encode())


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
