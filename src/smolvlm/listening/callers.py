"""Which host names a server answers to, and the web pages of which origins may change something on it.

A page that a user looks at may send requests to any address of the user's machine and network. Two ways are closed here.
DNS rebinding: the page's own name is made to point at this machine, so the browser takes the server for the page's; the
`Host` header still has that name. Cross-site requests: forms and uploads need no permission of the server; browsers name
the page in `Origin`, or say `Sec-Fetch-Site: cross-site`.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from smolvlm.errors import ParamsError

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[a-z0-9._-]+)(?::[0-9]{1,5})?", re.ASCII)
_ORIGIN = re.compile(r"[a-z][a-z0-9+.-]*://(.+)", re.ASCII)
_PATTERN = re.compile(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", re.ASCII)


@dataclass(frozen=True)
class Refusal:
    """An HTTP status and the sentence for it."""

    status: int
    sentence: str


def refused_page(origin: str) -> Refusal:
    """Of a page whose origin is not allowed, with the flag that allows it; one without an address is allowed by `*` alone."""
    flag = _shown(origin) if _is_origin(origin) else '"*"'
    return Refusal(403, f"a page of {_shown(origin)} may not send this; to allow it, start the server with --cors-origin {flag}.")


class Callers:
    """The rules of one server."""

    def __init__(self, host: str, allowed_hosts: Sequence[str] = (), origins: Sequence[str] = ()) -> None:
        """`host`: what it listens on. `allowed_hosts`: names, `*.example.org` or `*`. `origins`: `https://example.org` or `*`.

        Localhost and addresses are answered without being named. Raises ParamsError for what is none of these.
        """
        self._names = {"localhost", host.lower()}
        self._patterns = [_pattern(text) for text in allowed_hosts]
        self._origins = frozenset(_origin(text) for text in origins)

    def refusal(self, method: str, headers: Iterable[tuple[bytes, bytes]]) -> Refusal | None:
        """Why a request is not answered, or None. A handshake of a WebSocket has the method POST: it changes something."""
        found = {name: value.decode("latin-1").lower() for name, value in headers if name in _LOOKED_AT}
        host = found.get(b"host", "")
        name = _name(host)
        if host and (name is None or not (_is_address(name) or self._knows(name))):
            return Refusal(
                421,
                f"this server does not answer to the host name {_shown(host)}; if it is the server's, start "
                f"it with --allowed-hosts {_shown(name or 'NAME')}.",
            )
        if method in SAFE_METHODS:
            return None
        origin = found.get(b"origin")
        if origin is None:
            if found.get(b"sec-fetch-site") == "cross-site":
                return Refusal(403, "a page of another site may not send this; see --cors-origin.")
            return None
        if not self._may_send(origin, host):
            return refused_page(origin)
        return None

    def _may_send(self, origin: str, host: str) -> bool:
        if origin in self._origins or "*" in self._origins:
            return True
        matched = _ORIGIN.fullmatch(origin)
        if matched is None:  # "null": a page out of a file or a sandbox
            return False
        name = _name(matched[1])
        return (bool(host) and matched[1] == host) or (name is not None and (_is_loopback(name) or self._knows(name, False)))

    def _knows(self, name: str, any_name: bool = True) -> bool:
        return name in self._names or any(
            (pattern == "*" and any_name) or pattern == name or (pattern[:2] == "*." and name.endswith(pattern[1:]))
            for pattern in self._patterns
        )


_LOOKED_AT = frozenset({b"host", b"origin", b"sec-fetch-site"})


def _name(host: str) -> str | None:
    """The name in `name:port`, in small letters and without the dot that may end it; None when it is none."""
    matched = _HOST.fullmatch(host)
    return matched[1].strip("[]").removesuffix(".") if matched else None


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _is_loopback(name: str) -> bool:
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _pattern(text: str) -> str:
    if not _PATTERN.fullmatch(text.lower()):
        raise ParamsError(
            f"allowed_hosts={text[:80]!r}: expected a host name such as chat.example.org, *.example.org or *, without a scheme or a port."
        )
    return text.lower()


def _origin(text: str) -> str:
    if text != "*" and not _is_origin(text):
        raise ParamsError(
            f"cors_origin={text[:80]!r}: expected what a browser sends as Origin, such as http://localhost:3000 "
            "or https://example.org, without a path, or *."
        )
    return text.lower()


def _is_origin(text: str) -> bool:
    matched = _ORIGIN.fullmatch(text.lower())
    return matched is not None and not (text.lower().startswith("http") and _name(matched[1]) is None)


def _shown(text: str) -> str:
    return "".join(c if c.isprintable() and c.isascii() else "?" for c in text[:80])
