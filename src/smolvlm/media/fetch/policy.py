"""Which addresses are fetched: by scheme, host, port and IP address."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Protocol

from smolvlm.errors import ParamsError, SourceError
from smolvlm.media.fetch.urls import Target, is_public
from smolvlm.media.labels import short

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
# What parsers read as a number in the last place of a host: http://2130706433/, 0x7f.1 and 0177.1 are all 127.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)


class FetchPolicy(Protocol):
    """What a `Fetcher` asks on every hop. `pinned`: connections go to an address that `accepts` saw, past any proxy."""

    @property
    def pinned(self) -> bool: ...

    def check(self, target: Target, label: str) -> str:
        """The host to ask the resolver for. Raises SourceError for a hop that is not allowed."""
        ...

    def accepts(self, address: str) -> bool:
        """Whether a connection may go to this IP address."""
        ...


@dataclass(frozen=True)
class AnyHost:
    """Whatever the library's caller names: any host and port. Private addresses, and proxies of the environment, where allowed."""

    allow_private: bool = True

    @property
    def pinned(self) -> bool:
        return not self.allow_private

    def check(self, target: Target, label: str) -> str:  # noqa: ARG002  (the protocol names it)
        return target.host

    def accepts(self, address: str) -> bool:
        return self.allow_private or is_public(address)


@dataclass(frozen=True, kw_only=True)
class RemotePolicy:
    """Which addresses of requests are fetched. By default none: `hosts` is empty.

    hosts: "example.org" is that name alone, "*.example.org" all names below it, "*" any host of the public internet.
    schemes, ports: what may stand before and after the host, on every hop.
    allow_addresses: networks ("127.0.0.1", "10.1.0.0/16") that are accepted although they are not public. For tests, and
        for a store inside one's own network; whoever names one lets every request reach it on the allowed ports.
    """

    hosts: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ("http", "https")
    ports: tuple[int, ...] = (80, 443)
    allow_addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for host in self.hosts:
            if host != "*" and not _is_pattern(host):
                raise ParamsError(f"hosts: {host!r} is no host name; write example.org, *.example.org or *.")
        if unknown := set(self.schemes) - {"http", "https"}:
            raise ParamsError(f"schemes: {', '.join(sorted(unknown))}: only http and https can be allowed.")
        for network in self.allow_addresses:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ParamsError(f"allow_addresses: {network!r} is no address or network, such as 10.1.0.0/16.") from None

    @property
    def pinned(self) -> bool:
        return True

    def check(self, target: Target, label: str) -> str:
        """The host in its one spelling. Raises SourceError unless this hop's scheme, host and port are allowed."""
        if not self.hosts:
            raise SourceError(f"{label}: addresses are not fetched here; send the content as a data URL or upload it.")
        if target.scheme not in self.schemes:
            raise SourceError(f"{label}: {target.scheme}:// is not allowed here; use {' or '.join(self.schemes)}.")
        host = canonical_host(target.host, label)
        if not any(_matches(host, pattern) for pattern in self.hosts):
            raise SourceError(f"{label}: the host {short(host)} is not on this server's list; send the content as a data URL or upload it.")
        if target.port not in self.ports:
            raise SourceError(f"{label}: port {target.port} is not allowed here; expected {' or '.join(map(str, self.ports))}.")
        return host

    def accepts(self, address: str) -> bool:
        """Whether a connection may go to this IP address."""
        if is_public(address):
            return True
        try:
            ip = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(ip in ipaddress.ip_network(network) for network in self.allow_addresses)


def canonical_host(host: str, label: str) -> str:
    """The one spelling of a host, in small letters and without a final dot. Raises SourceError for any other spelling.

    Resolvers read "2130706433", "0177.1" and full-width digits as addresses that no list would recognize.
    """
    try:
        if "%" not in host:  # a zone (fe80::1%eth0) is a word of this machine's own
            return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not _is_name(host) or _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
        raise SourceError(
            f"{label}: {short(host)} is not a plain host name or address; write it as www.example.org "
            "(xn--... for other alphabets) or 192.0.2.1."
        )
    return host.lower().removesuffix(".")


def _is_pattern(text: str) -> bool:
    try:
        name = text.removeprefix("*.")
        return canonical_host(name, "hosts") == name.lower()
    except SourceError:
        return False


def _is_name(host: str) -> bool:
    return len(host) <= 253 and _HOST_NAME.fullmatch(host) is not None


def _matches(host: str, pattern: str) -> bool:
    pattern = pattern.lower()
    if pattern.startswith("*."):
        return host.endswith(pattern[1:])
    return pattern in ("*", host)
