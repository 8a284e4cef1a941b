"""Temporary files and folders of a running program. What a killed one left behind is deleted by the next that starts."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import tempfile
import threading
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

_LOCK = ".lock"
_MEDIA = "smolvlm-media-"


class OwnFolder:
    """`path` is a new folder, only this user's, until `close`; also a context manager.

    A lock on a file in it says that its owner lives: the system lets go of it however the process ends. Folders of the same
    `prefix` whose lock is free are deleted first (`clean`). Without such locks (Windows) none is. Raises OSError.
    """

    def __init__(self, prefix: str, *, clean: bool = True) -> None:
        if clean:
            delete_stale(prefix)
        self.path = Path(tempfile.mkdtemp(prefix=prefix)).resolve()
        made = self.path / f"{_LOCK}.new"
        self._lock = os.open(made, os.O_CREAT | os.O_RDWR, 0o600)
        try_lock(self._lock)
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


class _Files:
    """Temporary files in one `OwnFolder`, which is there as long as one of them is."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a finalizer may delete while another file is made
        self._folder: OwnFolder | None = None
        self._pid = 0
        self._cleaned = False
        self._names: set[Path] = set()

    def make(self) -> tuple[int, Path]:
        with self._lock:
            if self._folder is None or self._pid != os.getpid():  # a fork has files of its own
                self._folder = OwnFolder(_MEDIA, clean=not self._cleaned)
                self._pid, self._names, self._cleaned = os.getpid(), set(), True
            try:
                handle, name = tempfile.mkstemp(dir=self._folder.path)
            except OSError:
                self._leave()
                raise
            self._names.add(Path(name))
            return handle, Path(name)

    def delete(self, path: Path) -> None:
        with self._lock:
            if self._pid == os.getpid() and path in self._names:
                path.unlink(missing_ok=True)
                self._names.discard(path)
                self._leave()

    def _leave(self) -> None:
        if self._folder is not None and not self._names:
            self._folder.close()
            self._folder = None


_files = _Files()


def make_file() -> tuple[int, Path]:
    """An open handle for writing and its path; `delete_file` ends it. Raises OSError."""
    return _files.make()


def delete_file(path: Path) -> None:
    """Delete what `make_file` made in this process; once more is harmless."""
    _files.delete(path)


def delete_stale(prefix: str = _MEDIA) -> None:
    """Delete folders of this user whose owner is gone."""
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
                if try_lock(lock):
                    shutil.rmtree(folder)
                    logger.info("deleted what an earlier run left in %s", folder)
            finally:
                os.close(lock)


def try_lock(handle: int) -> bool:
    """Whether the lock of an open file is ours now; False where there are no such locks (Windows)."""
    try:
        fcntl: Any = importlib.import_module("fcntl")
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
