"""A folder that appears complete or not at all: made as a hidden sibling, then moved into place."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, TextIO

from smolvlm.errors import CheckpointError

logger = logging.getLogger(__name__)


class FolderInMaking:
    """`with FolderInMaking(target) as making: ... making.finish()`; leaving without `finish` removes what was made.

    An empty target is filled; one that is not empty is refused, or with `overwrite` replaced as a whole, and only when
    it is a checkpoint (holds a `config.json`): a mistyped path must not cost someone their documents. OSErrors inside
    the `with` block become CheckpointErrors.
    """

    def __init__(self, target: Path, *, overwrite: bool = False, needed_bytes: int = 0) -> None:
        try:
            # Through a link to what it points at, so that the link stays. A name such as ".." gets its real parent too.
            self.target = target.expanduser().resolve()
            _check_target(self.target, overwrite)
            self.target.parent.mkdir(parents=True, exist_ok=True)
            free_bytes = shutil.disk_usage(self.target.parent).free
        except CheckpointError:
            raise
        except (OSError, ValueError, RuntimeError) as error:
            raise CheckpointError(f"{target}: cannot be written ({error}).") from None
        if free_bytes < needed_bytes:
            raise CheckpointError(
                f"{target}: needs {needed_bytes / 1e9:.2f} GB, but the disk has "
                f"{free_bytes / 1e9:.2f} GB free; make room or choose another folder."
            )
        self.path = self.target.parent / f".{self.target.name}.{secrets.token_hex(4)}.part"

    def __enter__(self) -> FolderInMaking:
        try:
            self.path.mkdir()
        except OSError as error:
            raise CheckpointError(f"{self.target}: cannot be written ({error}).") from None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        shutil.rmtree(self.path, ignore_errors=True)  # after `finish` there is nothing left to remove
        if isinstance(error, OSError):
            raise CheckpointError(
                f"{self.target}: writing failed ({error.strerror or error}); nothing was changed. Make room or choose another folder."
            ) from error

    def write_text(self, name: str, text: str) -> None:
        """One small file, UTF-8 with plain line ends."""
        with (self.path / name).open("w", encoding="utf-8", newline="\n") as file:
            file.write(text)
            sync(file)

    def finish(self) -> None:
        """Move the folder into place. A replaced folder is removed only after the new one stands."""
        if not self.target.exists():
            self.path.rename(self.target)
            return
        old = self.path.with_suffix(".old")
        self.target.rename(old)
        try:
            self.path.rename(self.target)
        except OSError:
            old.rename(self.target)
            raise
        shutil.rmtree(old, ignore_errors=True)
        if old.exists():
            logger.warning("%s: the replaced checkpoint could not be removed entirely", old)


def sync(file: BinaryIO | TextIO) -> None:
    """To the disk, now: some file systems report that they are full only here."""
    file.flush()
    os.fsync(file.fileno())


def _check_target(target: Path, overwrite: bool) -> None:
    if not target.exists():
        return
    if not target.is_dir():
        raise CheckpointError(f"{target}: is a file; give the name of a folder.")
    if not any(target.iterdir()):
        return
    if not overwrite:
        raise CheckpointError(f"{target}: the folder is not empty; choose another, or replace it with overwrite=True.")
    if not (target / "config.json").is_file():
        raise CheckpointError(
            f"{target}: holds something other than a checkpoint (no config.json) and is not replaced; choose another folder."
        )
