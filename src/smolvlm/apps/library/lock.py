"""One long run at a time: a lock that the system lets go of however its holder ends, on every system that SQLite runs on."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from types import TracebackType

from smolvlm.errors import LibraryBusyError, LibraryError


class RunLock:
    """Held from the moment it is made until `close`, or the end of the process. Raises LibraryBusyError, LibraryError."""

    def __init__(self, path: Path, what: str) -> None:
        """`path`: a small file beside the library, made where there is none; `what`: the run, for the message."""
        try:
            self._connection = sqlite3.connect(path, timeout=0, isolation_level=None, check_same_thread=False)
            self._connection.execute("BEGIN EXCLUSIVE")
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise LibraryBusyError(f"another run ({what}) is writing to this library; wait for it, or pass another library.") from None
            raise LibraryError(f"{str(path)!r}: cannot be written ({error}); pass a library in a folder that can be.") from None
        except sqlite3.DatabaseError as error:
            raise LibraryError(f"{str(path)!r} is no lock of a library ({error}); delete it.") from None

    def close(self) -> None:
        """Let go of it; once more is harmless."""
        self._connection.close()

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
