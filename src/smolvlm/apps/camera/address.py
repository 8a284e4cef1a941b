"""Where pictures come from: an RTSP or HTTP address, a device, a file; and how it is shown without its password."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from smolvlm.errors import SourceError

Kind = Literal["rtsp", "http", "device", "file"]
_SECRET_QUERY = re.compile(r"(?i)([?&;](?:[a-z_]*pass(?:word|wd)?|pwd|token|key|secret|auth|user|usr|username|login)=)[^&;#\s]*")
_USER_INFO = re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)(?:[^\s'\"<>]*@)")


@dataclass(frozen=True)
class Address:
    """`url` is what is opened and may hold a password; `shown` never does. `live`: its time is now, and frames that come late go."""

    url: str
    kind: Kind
    shown: str

    @property
    def live(self) -> bool:
        return self.kind != "file"

    def __repr__(self) -> str:
        return f"Address({self.shown!r})"

    __str__ = __repr__


def address_of(source: str) -> Address:
    """Raises SourceError for a scheme that cannot be watched or a file that is not there."""
    scheme = source.split("://", 1)[0].lower() if "://" in source else ""
    if scheme:
        kinds: dict[str, Kind] = {"rtsp": "rtsp", "rtsps": "rtsp", "http": "http", "https": "http"}
        if scheme not in kinds:
            raise SourceError(f"{shown_url(source)}: {scheme}:// cannot be watched; give rtsp(s)://, http(s)://, a device or a file.")
        try:
            parts = urlsplit(source)
            host, _ = parts.hostname, parts.port
        except ValueError:
            host = None
        if not host:
            raise SourceError(f"{shown_url(source)}: the address names no host or a wrong port; expected {scheme}://HOST[:PORT]/PATH.")
        return Address(source, kinds[scheme], shown_url(source))
    path = Path(source)
    if source.startswith("/dev/"):
        if not path.exists():
            raise SourceError(f"{source}: there is no such device; `ls /dev/video*` lists the cameras.")
        return Address(source, "device", source)
    if not path.is_file():
        raise SourceError(f"{source}: there is no such file; give an RTSP address, a device such as /dev/video0, or a video file.")
    return Address(str(path.resolve()), "file", source)


def shown_url(url: str) -> str:
    """The address without user, password and keys."""
    head, mark, rest = url.partition("://")
    authority, slash, tail = rest.partition("/")
    if "@" in rest and "@" not in authority:  # a password with a slash in it
        authority, slash, tail = "", "", rest.rsplit("@", 1)[1]
    else:
        authority = authority.rsplit("@", 1)[-1]
    return _SECRET_QUERY.sub(r"\1***", f"{head}{mark}{authority}{slash}{tail}")


def without_secrets(text: str, address: Address) -> str:
    """A message of a library without what the address keeps secret."""
    text = text.replace(address.url, address.shown)
    try:
        parts = urlsplit(address.url)
        secrets = [parts.password, parts.username and f"{parts.username}:"] if address.kind in ("rtsp", "http") else []
    except ValueError:
        secrets = []
    for secret in secrets:
        if secret and len(secret) > 2:
            text = text.replace(secret, "***")
    return _SECRET_QUERY.sub(r"\1***", _USER_INFO.sub(r"\1", text))
