"""How applications write files that a user asked for: whole or not at all, and never over a file that is there."""

from __future__ import annotations

import contextlib
import os
import secrets
from pathlib import Path

from smolvlm.errors import SourceError


def write_file(path: str | os.PathLike[str], data: bytes | str, *, overwrite: bool = False) -> Path:
    """Write under a temporary name, flush to the disk, rename. Raises SourceError, also for a file that exists already."""
    target = Path(path)
    check_free(target, overwrite=overwrite)
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except (OSError, ValueError) as error:
        with contextlib.suppress(OSError, ValueError):
            part.unlink(missing_ok=True)
        raise SourceError(f"{str(target)!r}: cannot be written ({getattr(error, 'strerror', None) or error}).") from None
    return target


def check_free(path: str | os.PathLike[str], *, overwrite: bool = False) -> None:
    """Before long work: raises SourceError where `path` exists and may not be replaced, or has no folder."""
    target = Path(path)
    if target.is_dir():
        raise SourceError(f"{str(target)!r} is a folder; name a file in it.")
    if target.exists() and not overwrite:
        raise SourceError(f"{str(target)!r} exists already; pass overwrite=True to replace it, or another name.")
    if not target.parent.is_dir():
        raise SourceError(f"{str(target.parent)!r}: no such folder; make it first.")
