"""A file that appears under its name whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from smolvlm.errors import SourceError


@contextlib.contextmanager
def replacing(target: Path) -> Iterator[BinaryIO]:
    """An open temporary file beside `target`; at the end it is flushed to the disk and renamed, after an exception deleted.

    Raises SourceError where that cannot be done.
    """
    part = target.with_name(f".{target.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except (OSError, ValueError) as error:
        raise SourceError(f"{str(target)!r}: cannot be written ({getattr(error, 'strerror', None) or error}).") from None
    finally:
        with contextlib.suppress(OSError, ValueError):
            part.unlink(missing_ok=True)
