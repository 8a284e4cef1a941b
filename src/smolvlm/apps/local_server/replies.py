"""What a route gets and gives."""

from __future__ import annotations

import json
import mimetypes
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_RANGE = re.compile(r"bytes=(\d*)-(\d*)", re.ASCII)


@dataclass(frozen=True)
class Request:
    """`query`: the first value of each name; `headers` by lower-case name; `url`: the server's address with its token."""

    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    url: str


@dataclass(frozen=True)
class Reply:
    """A body, or a part of a file."""

    body: bytes = b""
    kind: str = "text/plain; charset=utf-8"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    file: Path | None = None
    start: int = 0
    count: int = 0

    @classmethod
    def text(cls, text: str, status: int = 200, kind: str = "text/plain") -> Reply:
        return cls(text.encode(), f"{kind}; charset=utf-8", status)

    @classmethod
    def json(cls, value: Any, status: int = 200) -> Reply:
        return cls(json.dumps(value, ensure_ascii=False).encode(), "application/json", status)

    @classmethod
    def download(cls, text: str, name: str, kind: str) -> Reply:
        return cls(text.encode(), f"{kind}; charset=utf-8", headers={"Content-Disposition": f'attachment; filename="{name}"'})

    @classmethod
    def of_file(cls, path: Path, request: Request) -> Reply:
        """A file, or the part that the request's Range names, as a player asks for it when it seeks."""
        try:
            size = path.stat().st_size
        except OSError:
            return cls.text("the file is gone", 404)
        kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
        wanted = _RANGE.fullmatch(request.headers.get("range", ""))
        if wanted is None or wanted.groups() == ("", ""):
            return cls(kind=kind, headers={"Accept-Ranges": "bytes"}, file=path, count=size)
        first, last = wanted.groups()
        start = int(first) if first else max(0, size - int(last))
        end = min(int(last), size - 1) if first and last else size - 1
        if start >= size or end < start:
            return cls(status=416, headers={"Content-Range": f"bytes */{size}"})
        said = {"Accept-Ranges": "bytes", "Content-Range": f"bytes {start}-{end}/{size}"}
        return cls(kind=kind, status=206, headers=said, file=path, start=start, count=end - start + 1)
