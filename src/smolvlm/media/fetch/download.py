"""An http(s) URL -> a temporary file, with every hop and every address checked.

The rules answer known attacks on media URLs: redirects to inside hosts, names that resolve to private addresses (also
between the check and the connection), addresses that two parsers read differently (`http://a\\@b`), endless bodies.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from smolvlm.errors import SourceError
from smolvlm.media.labels import one_line, short
from smolvlm.media.options import Limits

_REDIRECTS = {301, 302, 303, 307, 308}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")  # the local-use 64:ff9b:1::/48 never leads to the public internet
_GLOBAL_UNICAST = ipaddress.ip_network("2000::/3")  # all of IPv6 that is assigned to the public internet
# Azure's host answers each of its machines at an address that by its number is public.
_INSIDE_CLOUDS = {ipaddress.ip_address("168.63.129.16")}
# The body as it is: a compressed transfer could expand a thousandfold between two checks of its size.
HEADERS = {"User-Agent": "smolvlm", "Accept": "*/*", "Accept-Encoding": "identity"}


@dataclass(frozen=True)
class Target:
    """One hop: the URL as given, and what to connect to."""

    url: str
    host: str
    port: int
    scheme: str

    def at(self, address: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """URL, headers and httpx extensions of a request that goes to `address` and nowhere else."""
        bracketed = f"[{address}]" if ":" in address else address
        url = urlunsplit(urlsplit(self.url)._replace(netloc=f"{bracketed}:{self.port}"))
        # httpx checks the certificate against the server name, not against the address.
        return url, {**HEADERS, "Host": urlsplit(self.url).netloc}, {"sni_hostname": self.host}


def download(url: str, *, allow_private_hosts: bool, limits: Limits) -> Path:
    """Fetch `url` into a new temporary file that the caller deletes. Raises SourceError.

    With `allow_private_hosts=False` the name is resolved here, all its addresses must be public, and the connection
    goes to that very address, past any proxy; the certificate is still checked against the name.
    """
    label = short(url)
    handle, name = tempfile.mkstemp(prefix="smolvlm-")
    path = Path(name)
    deadline = time.monotonic() + limits.max_download_s
    try:
        with os.fdopen(handle, "wb") as file:
            for _ in range(limits.max_redirects + 1):
                target = parse_url(url)
                following = _fetch(target, file.write, label, allow_private_hosts, limits, deadline)
                if following is None:
                    break
                url = join_url(target.url, following)
            else:
                raise SourceError(f"{label}: more than {limits.max_redirects} redirects; pass the final address.")
            if not file.tell():
                raise SourceError(f"{label}: the server sent an empty file; check the address in a browser.")
    except BaseException as error:
        path.unlink(missing_ok=True)
        if (known := download_error(label, error, limits.timeout_s)) is not None:
            raise known from None
        raise
    return path


def download_error(label: str, error: BaseException, timeout_s: float) -> SourceError | None:
    """The sentence for what went wrong on the network; None for anything else."""
    if isinstance(error, httpx.TimeoutException):
        return SourceError(f"{label}: no answer within {timeout_s:g} s; try again or download it first.")
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL | httpx.StreamError | OSError | UnicodeError):
        return SourceError(f"{label}: the download failed ({one_line(error)}); check the address and the network.")
    return None


def join_url(base: str, location: str) -> str:
    """Where a redirect leads. Raises SourceError for what is no address."""
    try:
        return urljoin(base, location)
    except ValueError:
        raise SourceError(f"{short(location)}: not a valid URL to be sent on to; pass the final address.") from None


def parse_url(url: str) -> Target:
    """Split a URL, refusing whatever another parser might read differently."""
    label = short(url)
    if "\\" in url or any(c.isspace() or not c.isprintable() for c in url):
        raise SourceError(f"{label}: the URL holds a backslash, a space or a control character; percent-encode it.")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise SourceError(f"{label}: not a valid URL; expected http(s)://host/path.") from None
    if parts.scheme.lower() not in ("http", "https"):
        raise SourceError(f"{label}: {parts.scheme}:// addresses are not opened; pass an http(s) URL.")
    if "@" in parts.netloc:
        raise SourceError(f"{label}: user names and passwords in URLs are not accepted; remove the part before '@'.")
    if not host or port == 0:
        raise SourceError(f"{label}: the URL names no host; expected http(s)://host/path.")
    scheme = parts.scheme.lower()
    return Target(urlunsplit(parts._replace(fragment="")), host, port or {"http": 80, "https": 443}[scheme], scheme)


def _fetch(
    target: Target, write: Callable[[bytes], object], label: str, allow_private_hosts: bool, limits: Limits, deadline: float
) -> str | None:
    """One request: the body goes to `write`; a redirect's address comes back instead."""
    url, headers = target.url, dict(HEADERS)
    extensions: dict[str, str] = {}
    if not allow_private_hosts:
        url, headers, extensions = target.at(_public_address(target, label))
    with (
        httpx.Client(follow_redirects=False, timeout=limits.timeout_s, trust_env=allow_private_hosts) as client,
        client.stream("GET", url, headers=headers, extensions=extensions) as response,
    ):
        following = check_head(response, label, limits.max_download_bytes)
        if following is not None:
            return following
        total = 0
        for chunk in response.iter_bytes():
            total += len(chunk)
            if total > limits.max_download_bytes:
                raise too_large(label, limits.max_download_bytes)
            if time.monotonic() > deadline:
                raise SourceError(f"{label}: not finished after {limits.max_download_s:g} s; download it first.")
            write(chunk)
    return None


def check_head(response: httpx.Response, label: str, max_bytes: int) -> str | None:
    """A redirect's address, or None when the body may be read. Raises SourceError for any other answer."""
    if response.status_code in _REDIRECTS and "location" in response.headers:
        return str(response.headers["location"])
    if response.status_code != 200:
        raise SourceError(f"{label}: the server answered {response.status_code}; check the address in a browser.")
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise too_large(label, max_bytes)
    return None


def too_large(label: str, max_bytes: int) -> SourceError:
    return SourceError(f"{label}: more than the limit of {max_bytes} bytes; download it and cut it first, or raise the limit.")


def resolve(host: str, port: int) -> list[str]:
    """All addresses of `host`; blocks while the system's resolver asks. Raises OSError or UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def _public_address(target: Target, label: str) -> str:
    """One address of the host, after all of them were found to be public."""
    try:
        addresses = resolve(target.host, target.port)
    except (OSError, UnicodeError):
        raise unknown_host(target, label) from None
    return checked_address(addresses, label, is_public)


def unknown_host(target: Target, label: str) -> SourceError:
    return SourceError(f"{label}: the host {short(target.host)} is not known; check the address.")


def checked_address(addresses: list[str], label: str, accepted: Callable[[str], bool]) -> str:
    """The first of a host's addresses if every one is accepted: a mixed answer is an attack or a mistake."""
    for address in addresses:
        if not accepted(address):
            raise SourceError(
                f"{label}: the host is on a private network, which is not allowed here; pass a public address or send the bytes."
            )
    if not addresses:
        raise SourceError(f"{label}: the host has no address; check the URL.")
    return addresses[0]


def is_public(address: str) -> bool:
    """Whether an IP address, also one wrapped inside an IPv6 address, belongs to the public internet."""
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL_UNICAST:  # Python calls fec0:: and ::127.0.0.1 global
            return False
    return ip.is_global and not ip.is_multicast and ip not in _INSIDE_CLOUDS
