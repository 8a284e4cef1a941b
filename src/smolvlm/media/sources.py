"""What may be opened: a path, bytes, a file-like object, a data URL or an http(s) URL, under a policy.

Every source ends as a local file or as bytes, so that what reads media never touches the network. Whatever cannot be
opened is a SourceError of one sentence.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import os
import re
import stat
import string
import tempfile
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias, cast
from urllib.parse import unquote_to_bytes

from smolvlm.errors import SourceError
from smolvlm.media.labels import one_line, short, short_path
from smolvlm.media.limits import Limits
from smolvlm.temporary import delete_file, make_file

SourceLike: TypeAlias = "str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | Source"

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.\-]+):", re.ASCII)  # two letters at least: `C:\clip.mp4` is a path
_BASE64_PIECE = 1 << 18
_CHUNK_BYTES = 1 << 20
_IN_MEMORY_BYTES = 64 << 20  # a file-like object beyond this goes to a temporary file


@dataclass(frozen=True, kw_only=True)
class SourcePolicy:
    """Which sources may be opened, and within which limits.

    A server that takes sources from strangers sets `allow_paths=False` and `allow_private_hosts=False`; then only
    addresses of the public internet are connected to, and it is the address itself that is checked.
    """

    allow_paths: bool = True
    allow_urls: bool = True
    allow_private_hosts: bool = True
    limits: Limits = field(default_factory=Limits)


class Source:
    """Media bytes within reach: either `path` or `data` is set, never both.

    `label` is a short printable name for messages. A temporary file behind `path` is deleted by `close`, by the end of
    a `with` block, or when the object is collected.
    """

    def __init__(self, label: str, *, path: Path | None = None, data: bytes | None = None, temporary: bool = False) -> None:
        if (path is None) == (data is None):
            raise SourceError(f"{label}: a source is either a file or bytes.")
        self.label = label
        self.path = path
        self.data = data
        self._remove = weakref.finalize(self, delete_file, path) if temporary and path is not None else None

    def open(self) -> BinaryIO:
        """A fresh binary stream at the first byte; the caller closes it."""
        if self.data is not None:
            return io.BytesIO(self.data)
        assert self.path is not None, "a Source has a path or data"
        try:
            return self.path.open("rb")
        except (OSError, ValueError) as error:
            raise SourceError(_path_problem(self.label, error)) from None

    def head(self, count: int) -> bytes:
        """The first `count` bytes, or all of a shorter source."""
        if self.data is not None:
            return self.data[:count]
        with self.open() as stream:
            try:
                return stream.read(count)
            except OSError as error:
                raise SourceError(_path_problem(self.label, error)) from None

    @property
    def size(self) -> int:
        """Bytes in all. Raises SourceError for a file that is gone."""
        if self.data is not None:
            return len(self.data)
        assert self.path is not None, "a Source has a path or data"
        try:
            return self.path.stat().st_size
        except (OSError, ValueError) as error:
            raise SourceError(_path_problem(self.label, error)) from None

    def close(self) -> None:
        """Delete the temporary file, if there is one; closing twice is harmless."""
        if self._remove is not None:
            self._remove()

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Source({self.label!r})"


def open_source(source: SourceLike, policy: SourcePolicy | None = None) -> Source:
    """Bring `source` within reach. A `Source` comes back as it is. Raises SourceError.

    A string is a data URL if it starts with `data:`, a URL if it starts with `http://` or `https://`, and else a path;
    any other scheme is refused.
    """
    policy = policy or SourcePolicy()
    if isinstance(source, Source):
        return source
    if isinstance(source, str):
        return _from_string(source, policy)
    if isinstance(source, os.PathLike):
        return _from_path(os.fspath(source), policy)
    if isinstance(source, bytes | bytearray | memoryview):
        if not len(source):
            raise SourceError("the media bytes are empty; pass the content of a picture or video file.")
        return Source(f"<{memoryview(source).nbytes} bytes>", data=bytes(source))
    if callable(getattr(source, "read", None)):
        return _from_stream(source, policy.limits)
    raise SourceError(f"a {type(source).__name__} is not a media source; pass a path, bytes, a binary file, a data URL or an http(s) URL.")


def _from_string(text: str, policy: SourcePolicy) -> Source:
    if text[:5].lower() == "data:":
        return _from_data_url(text, policy.limits)
    scheme = _SCHEME.match(text)
    if scheme is None or not text[scheme.end() :].startswith("//"):
        return _from_path(text, policy)  # `12:30.jpg` and `a:b.png` are file names
    if scheme[1].lower() not in ("http", "https"):
        remedy = "pass the path itself" if scheme[1].lower() == "file" else "pass a path or an http(s) URL"
        raise SourceError(f"{short(text)}: {scheme[1]}:// addresses are not opened; {remedy}.")
    if not policy.allow_urls:
        raise SourceError(f"{short(text)}: URLs are not allowed here; send the bytes or a data URL.")
    from smolvlm.media.fetch.download import Fetcher  # the only part that needs an HTTP client
    from smolvlm.media.fetch.policy import AnyHost

    with contextlib.closing(Fetcher(policy.limits, AnyHost(policy.allow_private_hosts))) as fetcher:
        return fetcher.fetch_now(text)


def _from_path(name: Any, policy: SourcePolicy) -> Source:
    label = short_path(str(name))
    if not policy.allow_paths:
        raise SourceError(f"{label}: local paths are not allowed here; send the bytes, a data URL or an http(s) URL.")
    if not isinstance(name, str) or not name:
        raise SourceError("an empty path names no file; pass the path of a picture or video.")
    path = Path(name)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise SourceError(_path_problem(label, error)) from None
    if stat.S_ISDIR(status.st_mode):
        raise SourceError(f"{label} is a folder; pass the picture or video files in it one by one.")
    if not stat.S_ISREG(status.st_mode):
        raise SourceError(f"{label} is not a regular file; copy its content to a file or pass it as bytes.")
    if not status.st_size:
        raise SourceError(f"{label} is empty (0 bytes); check that it was copied completely.")
    if not os.access(path, os.R_OK):
        raise SourceError(f"{label} cannot be read: permission denied; change its permissions or copy it.")
    return Source(label, path=path)


def _from_data_url(url: str, limits: Limits) -> Source:
    label = short(url)
    header, comma, payload = url[5:].partition(",")
    if not comma:
        raise SourceError(f"{label}: a data URL needs a comma before its content, as in data:image/png;base64,....")
    # Four characters carry three bytes; %-escapes only shrink. Checked before anything is decoded.
    if len(payload) * 3 // 4 > limits.max_data_url_bytes * 3:
        raise _too_large(label, limits.max_data_url_bytes)
    try:
        data = unquote_to_bytes(payload)
        if header.lower().rstrip().endswith(";base64"):
            data = _from_base64(data)
    except (binascii.Error, ValueError):
        raise SourceError(f"{label}: its content is not valid base64; encode the file's bytes again.") from None
    if len(data) > limits.max_data_url_bytes:
        raise _too_large(label, limits.max_data_url_bytes)
    if not data:
        raise SourceError(f"{label}: the data URL has no content; put the file's bytes after the comma.")
    return Source(f"{label[:40].rstrip('.')}... ({len(data)} bytes)" if len(label) > 40 else label, data=data)


def _from_base64(text: bytes) -> bytes:
    """White space is left out, padding may be missing. In pieces: the decoder holds the interpreter's lock, and a server's other
    threads wait for it. Raises binascii.Error."""
    pieces, rest = [], b""
    for start in range(0, len(text), _BASE64_PIECE):
        rest += text[start : start + _BASE64_PIECE].translate(None, string.whitespace.encode())
        whole = len(rest) // 4 * 4
        if start + _BASE64_PIECE < len(text):
            if b"=" in rest[:whole]:
                raise binascii.Error("padding before the end")
            pieces.append(base64.b64decode(rest[:whole], validate=True))
            rest = rest[whole:]
    pieces.append(base64.b64decode(rest + b"=" * (-len(rest) % 4), validate=True))
    return b"".join(pieces)


def _from_stream(stream: Any, limits: Limits) -> Source:
    label = short_path(str(getattr(stream, "name", None) or f"<{type(stream).__name__}>"))
    buffer = tempfile.SpooledTemporaryFile(max_size=_IN_MEMORY_BYTES)  # noqa: SIM115  (closed below)
    with buffer:
        total = 0
        while True:
            try:
                chunk = stream.read(_CHUNK_BYTES)
            except Exception as error:  # a stranger's object may raise anything
                raise SourceError(f"{label}: reading the file object failed ({one_line(error)}).") from None
            if not isinstance(chunk, bytes | bytearray | memoryview):
                raise SourceError(f"{label}: the file object does not give bytes; open the file in binary mode ('rb').")
            if not len(chunk):
                break
            total += memoryview(chunk).nbytes
            if total > limits.max_stream_bytes:
                raise _too_large(label, limits.max_stream_bytes)
            buffer.write(chunk)
        if not total:
            raise SourceError(f"{label}: the file object is empty or already read; rewind it with seek(0).")
        buffer.seek(0)
        if total <= _IN_MEMORY_BYTES:
            return Source(label, data=buffer.read())
        return Source(label, path=_spill(cast(BinaryIO, buffer), label), temporary=True)


def _spill(stream: BinaryIO, label: str) -> Path:
    """Copy to a named temporary file: readers of videos want a name to open more than once."""
    try:
        handle, path = make_file()
        with os.fdopen(handle, "wb") as file:
            while chunk := stream.read(_CHUNK_BYTES):
                file.write(chunk)
    except OSError as error:
        raise SourceError(f"{label}: no room for a temporary copy ({one_line(error)}); pass a path instead.") from None
    return path


def _too_large(label: str, limit_bytes: int) -> SourceError:
    return SourceError(f"{label}: more than the limit of {limit_bytes} bytes; pass a smaller file or raise the limit.")


def _path_problem(label: str, error: Exception) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"{label}: no such file; check the name and the folder it is in."
    if isinstance(error, PermissionError):
        return f"{label} cannot be read: permission denied; change its permissions or copy it."
    return f"{label}: not a path that can be opened ({one_line(error)}); pass the path of a picture or video."
