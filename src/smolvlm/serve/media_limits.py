"""What media a server takes from strangers: how much of it, and from which hosts.

The numbers of one source live in `media.options.Limits`, which is made from these; the rest is the server's own.
"""

from __future__ import annotations

import ipaddress
import math
import re
from dataclasses import dataclass, fields
from pathlib import Path

from smolvlm.errors import ParamsError, SmolVLMError, SourceError
from smolvlm.media.download import Target, is_public
from smolvlm.media.labels import short
from smolvlm.media.options import Limits

_HOST_NAME = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(\.[A-Za-z0-9_-]{1,63})*\.?", re.ASCII)
# What parsers read as a number in the last place of a host: http://2130706433/, 0x7f.1 and 0177.1 are all 127.0.0.1.
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)


class MediaUnavailableError(SmolVLMError, RuntimeError):
    """The server's trouble, not the file's: no decoder is free or can be started. A server answers 503 to it."""


class MediaBusyError(MediaUnavailableError):
    """One owner's media wait in too great a number. A server answers 429 to it."""


@dataclass(frozen=True)
class StoredFile:
    """An upload that the server itself put at `path`. `label` is what messages call it; the path is never shown."""

    path: Path
    label: str = "the uploaded file"


@dataclass(frozen=True, kw_only=True)
class MediaLimits:
    """Bounds on what requests may cost. Sizes in bytes and pixels, times in seconds. Raises ParamsError for bad ones.

    max_frames caps what is sampled of a video; a request that asks for more is refused. max_video_s is the length of the
    whole video, also when only a span is asked for. decode_s is the processor time of one medium; stalled_s, on the
    clock, ends what uses none, and what a busy machine does not get done. worker_mb is the address space of one decoding
    process, about 250 MB of which it needs for itself. queue_s is how long a request waits for a free worker. download_s
    covers everything from the resolver to the last byte.
    """

    max_media: int = 16  # in one request
    max_media_bytes: int = 64 * 1024**2
    max_image_pixels: int = 50_000_000
    max_frame_pixels: int = 9_000_000  # of one frame: 4096 x 2160 is 8.8 million
    max_frames: int = 64
    max_video_s: float = 3600.0
    decode_s: float = 30.0
    stalled_s: float = 120.0
    worker_mb: int = 2048
    workers: int = 2
    queue_s: float = 60.0
    owner_waiting: int = 112  # media of one owner that wait for a decoding process: seven requests of the largest kind
    download_s: float = 60.0
    wait_s: float = 10.0  # for a remote host to answer, and between two pieces of a download
    max_downloads: int = 8  # at the same time

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            kinds = int if field.type == "int" else int | float
            if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value) or value <= 0:
                expected = "a whole number of at least 1" if kinds is int else "a number above 0"
                raise ParamsError(f"{field.name}={value!r}: expected {expected}.")

    def of_one_source(self) -> Limits:
        """The same bounds as `media/` reads them."""
        return Limits(
            max_image_pixels=self.max_image_pixels,
            max_video_pixels=self.max_frame_pixels,
            max_download_bytes=self.max_media_bytes,
            max_data_url_bytes=self.max_media_bytes,
            max_stream_bytes=self.max_media_bytes,
            timeout_s=self.wait_s,
            max_download_s=self.download_s,
        )


@dataclass(frozen=True, kw_only=True)
class RemotePolicy:
    """Which addresses of requests are fetched. By default none: `hosts` is empty.

    hosts: "example.org" is that name alone, "*.example.org" all names below it, "*" any host of the public internet.
    schemes, ports: what may stand before and after the host, on every hop; max_redirects counts the hops after the first.
    allow_addresses: networks ("127.0.0.1", "10.1.0.0/16") that are accepted although they are not public. For tests, and
        for a store inside one's own network; whoever names one lets every request reach it on the allowed ports.
    """

    hosts: tuple[str, ...] = ()
    schemes: tuple[str, ...] = ("http", "https")
    ports: tuple[int, ...] = (80, 443)
    max_redirects: int = 3
    allow_addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for host in self.hosts:
            if host != "*" and not _is_pattern(host):
                raise ParamsError(f"hosts: {host!r} is no host name; write example.org, *.example.org or *.")
        if unknown := set(self.schemes) - {"http", "https"}:
            raise ParamsError(f"schemes: {', '.join(sorted(unknown))}: only http and https can be allowed.")
        if self.max_redirects < 0:
            raise ParamsError(f"max_redirects={self.max_redirects}: expected 0 or more.")
        for network in self.allow_addresses:
            try:
                ipaddress.ip_network(network)
            except ValueError:
                raise ParamsError(f"allow_addresses: {network!r} is no address or network, such as 10.1.0.0/16.") from None

    def check(self, target: Target, label: str) -> None:
        """Raise SourceError unless this hop's scheme, host and port are allowed. Its address is checked by `accepts`."""
        if not self.hosts:
            raise SourceError(f"{label}: addresses are not fetched here; send the content as a data URL or upload it.")
        if target.scheme not in self.schemes:
            raise SourceError(f"{label}: {target.scheme}:// is not allowed here; use {' or '.join(self.schemes)}.")
        host = canonical_host(target.host, label)
        if not any(_matches(host, pattern) for pattern in self.hosts):
            raise SourceError(f"{label}: the host {short(host)} is not on this server's list; send the content as a data URL or upload it.")
        if target.port not in self.ports:
            raise SourceError(f"{label}: port {target.port} is not allowed here; expected {' or '.join(map(str, self.ports))}.")

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

    Resolvers read "2130706433", "0177.1" and full-width digits as addresses that no list would recognise.
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
