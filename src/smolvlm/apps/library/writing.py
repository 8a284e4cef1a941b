"""How applications write files that a user asked for: whole or not at all, and never over a file that is there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from smolvlm.atomic_file import replacing
from smolvlm.errors import SourceError


def write_file(path: str | os.PathLike[str], data: bytes | str, *, overwrite: bool = False) -> Path:
    """Write under a temporary name, flush to the disk, rename. Raises SourceError, also for a file that exists already."""
    target = Path(path)
    check_free(target, overwrite=overwrite)
    with replacing(target) as file:
        file.write(data.encode() if isinstance(data, str) else data)
    return target


def check_free(path: str | os.PathLike[str], *, overwrite: bool = False, sources: Sequence[str | os.PathLike[str]] = ()) -> None:
    """Before long work: raises SourceError where `path` exists and may not be replaced, has no folder, or is one of `sources`."""
    target = Path(path)
    for source in sources:
        if target.exists() and os.path.exists(source) and os.path.samefile(target, source):
            raise SourceError(f"{str(target)!r} is the video itself, which is never replaced; name another file.")
    if target.is_dir():
        raise SourceError(f"{str(target)!r} is a folder; name a file in it.")
    if target.exists() and not overwrite:
        raise SourceError(f"{str(target)!r} exists already; pass overwrite=True to replace it, or another name.")
    if not target.parent.is_dir():
        raise SourceError(f"{str(target.parent)!r}: no such folder; make it first.")
