"""One input of a batch run: where its bytes are, and the name that it keeps through every restart."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

Kind = Literal["file", "url", "tar", "cell", "unreadable"]


@dataclass(frozen=True)
class Item:
    """kind "file": `place` is a path or a data URL. "url": an http(s) address. "tar": `size` bytes from byte `index` of
    the file `place`. "cell": row `index` of the Parquet file `place`, column `note`. "unreadable": `note` says why.

    base: the folder of the list or table that names a path; such a path is opened inside it and the run's `allow_paths`
    only. Empty for what the user named.

    `source` is what people call it. `id` follows from the place, so the same input has the same id in every run.
    """

    id: str
    source: str
    kind: Kind
    place: str
    index: int = 0
    size: int = 0
    note: str = ""
    base: str = ""


def item_id(*place: object) -> str:
    """32 hexadecimal digits for a place: a path, or a file and what it is in it."""
    digest = hashlib.blake2b(digest_size=16)
    for part in place:
        encoded = str(part).encode("utf-8", "surrogateescape")
        digest.update(len(encoded).to_bytes(8, "big") + encoded)  # ("a", "bc") is not ("ab", "c")
    return digest.hexdigest()
