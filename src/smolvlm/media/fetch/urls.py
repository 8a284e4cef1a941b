"""The rules of URLs and addresses: how they are read, which are public, what of an answer is taken.

The rules answer known attacks on media URLs: redirects to inside hosts, names that resolve to private addresses (also
between the check and the connection), addresses that two parsers read differently (`http://a\\@b`), endless bodies.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit, urlunsplit

from smolvlm.errors import SourceError
from smolvlm.media.labels import short

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


def resolve(host: str, port: int) -> list[str]:
    """All addresses of `host`; blocks while the system's resolver asks. Raises OSError or UnicodeError."""
    return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


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
