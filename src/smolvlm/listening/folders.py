"""A temporary folder of a running program. What a killed one left behind is deleted by the next that starts."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_LOCK = ".lock"


class OwnFolder:
    """`path` is a new folder, only this user's, until `close`; also a context manager.

    A lock on a file in it says that its owner lives: the system lets go of it however the process ends. Folders of the same
    `prefix` whose lock is free are deleted first. Without such locks (Windows) none is. Raises OSError.
    """

    def __init__(self, prefix: str) -> None:
        _delete_stale(prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
        made = self.path / f"{_LOCK}.new"
        self._lock = os.open(made, os.O_CREAT | os.O_RDWR, 0o600)
        _try_lock(self._lock)
        if os.name != "nt":  # an open file cannot be moved or deleted there
            made.rename(self.path / _LOCK)  # locked from the moment that it has its name

    def __enter__(self) -> OwnFolder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Delete the folder; once more is harmless."""
        if self._lock >= 0:
            lock, self._lock = self._lock, -1
            if os.name == "nt":
                os.close(lock)
            shutil.rmtree(self.path, ignore_errors=True)
            if os.name != "nt":
                os.close(lock)


def _delete_stale(prefix: str) -> None:
    getuid: Any = getattr(os, "getuid", None)
    if getuid is None:
        return
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        # Others may write into the temporary folder: nothing of theirs is followed or deleted.
        with contextlib.suppress(OSError):
            if folder.is_symlink() or folder.lstat().st_uid != getuid():
                continue
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _try_lock(lock):
                    shutil.rmtree(folder)
                    logger.info("deleted what an earlier run left in %s", folder)
            finally:
                os.close(lock)


def _try_lock(handle: int) -> bool:
    """Whether the lock is ours now."""
    try:
        fcntl: Any = importlib.import_module("fcntl")
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
