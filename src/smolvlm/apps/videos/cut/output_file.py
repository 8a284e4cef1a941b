"""A large file that is written piece by piece under a temporary name and gets its own when it is whole."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import av

from smolvlm.apps.library import check_free
from smolvlm.errors import SmolVLMError, SourceError, VideoError
from smolvlm.media.labels import one_line
from smolvlm.temporary import try_lock

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ENDING = ".unfinished"


class OutputFile:
    """A context manager: gives the temporary path, puts the file in place at the end, and deletes it after an exception.

    A lock says that its writer lives: what a killed one left beside the same name is deleted by the next.
    """

    def __init__(self, target: Path, source: Path | None, *, overwrite: bool) -> None:
        check_free(target, overwrite=overwrite, sources=[] if source is None else [source])
        self._target = target
        self._path = target.with_name(f".{target.name}.{secrets.token_hex(4)}{_ENDING}")
        self._handle = -1

    def __enter__(self) -> Path:
        self._delete_left()
        try:
            self._handle = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666)
        except OSError as error:
            raise SourceError(f"{str(self._target)!r} cannot be written ({error.strerror}); choose another folder.") from None
        try_lock(self._handle)
        return self._path

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                os.fsync(self._handle)
                os.replace(self._path, self._target)
        except OSError as error:
            raise SourceError(f"{str(self._target)!r} cannot be written ({error.strerror}); make room, or choose another folder.") from None
        finally:
            os.close(self._handle)
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)

    def _delete_left(self) -> None:
        for left in self._target.parent.glob(f".{_escaped(self._target.name)}.*{_ENDING}"):
            with contextlib.suppress(OSError):
                handle = os.open(left, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
                try:
                    if try_lock(handle):
                        left.unlink()
                finally:
                    os.close(handle)


@contextlib.contextmanager
def named_failures(label: str, target: Path) -> Iterator[None]:
    """What fails while a video is read and another written, as one sentence."""
    try:
        yield
    except SmolVLMError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        if getattr(error, "errno", None) in _FULL:
            raise SourceError(f"{str(target)!r} cannot be written: no room is left; make room, or choose another folder.") from None
        raise VideoError(f"{label}: it could not be cut ({one_line(error)}); it is damaged, or changed while it was read.") from None


def _escaped(name: str) -> str:
    return "".join(f"[{c}]" if c in "*?[" else c for c in name)
