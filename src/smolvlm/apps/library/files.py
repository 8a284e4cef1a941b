"""What names a file's content."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from smolvlm.errors import SourceError

_BLOCK = 1 << 20


def content_hash(path: str | os.PathLike[str]) -> str:
    """32 hexadecimal digits of all of a file's bytes (BLAKE2b). Raises SourceError for what cannot be read."""
    digest = hashlib.blake2b(digest_size=16)
    try:
        with Path(path).open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, ValueError) as error:
        raise SourceError(f"{os.fspath(path)!r}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    return digest.hexdigest()
