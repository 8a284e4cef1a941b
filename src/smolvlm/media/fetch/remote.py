"""An http(s) URL of a request -> a temporary file, under a `RemotePolicy`.

The rules of URLs and addresses are those of `media.download`. This one never blocks the event loop, ends when its request
does, and has one deadline for everything: names, connections, headers that drip and bodies that never end.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import FileIO
from pathlib import Path
from typing import TypeAlias

import httpx

from smolvlm.errors import MediaUnavailableError, SourceError
from smolvlm.media.fetch.download import (
    Target,
    check_head,
    checked_address,
    download_error,
    join_url,
    parse_url,
    resolve,
    too_large,
    unknown_host,
)
from smolvlm.media.fetch.policy import RemotePolicy, canonical_host
from smolvlm.media.labels import one_line, short
from smolvlm.media.sandbox.limits import MediaLimits
from smolvlm.media.sources import Source

Resolver: TypeAlias = Callable[[str, int], list[str]]


class RemoteFetcher:
    """Fetches what the policy allows. `resolver(host, port)` gives all addresses of a name; it may block."""

    def __init__(self, limits: MediaLimits, policy: RemotePolicy, resolver: Resolver = resolve) -> None:
        self._limits = limits
        self._policy = policy
        self._resolver = resolver
        # Names have threads of their own: a resolver that hangs must not hold up the rest of the server.
        self._resolving = ThreadPoolExecutor(limits.max_downloads, thread_name_prefix="smolvlm-names")
        self._free = asyncio.Semaphore(limits.max_downloads)

    async def fetch(self, url: str) -> Source:
        """The content of `url`; closing the source deletes the file. Raises SourceError.

        MediaUnavailableError when there is no room for the file.
        """
        label = short(url)
        self._policy.check(parse_url(url), label)  # what is refused anyway waits for nobody
        try:
            return await asyncio.wait_for(self._fetch(url, label), self._limits.download_s)
        except asyncio.TimeoutError:
            raise SourceError(f"{label}: not finished after {self._limits.download_s:g} s; download it first.") from None

    async def _fetch(self, url: str, label: str) -> Source:
        async with self._free:
            try:
                handle, name = tempfile.mkstemp(prefix="smolvlm-")
            except OSError as error:
                raise _no_room(label, error) from None
            # From here on the source owns the file: whatever ends this coroutine, the file goes with it.
            source = Source(label, path=Path(name), temporary=True)
            try:
                with os.fdopen(handle, "wb", buffering=0) as file:  # a full disk shows at the write
                    await self._follow(url, label, file)
            except BaseException as error:
                source.close()
                if (known := download_error(label, error, self._limits.wait_s)) is not None:
                    raise known from None
                raise
            return source

    async def _follow(self, url: str, label: str, file: FileIO) -> None:
        async with httpx.AsyncClient(follow_redirects=False, timeout=self._limits.wait_s, trust_env=False) as client:
            for _ in range(self._policy.max_redirects + 1):
                target = parse_url(url)
                self._policy.check(target, label)
                address = checked_address(await self._resolve(target, label), label, self._policy.accepts)
                following = await self._get(client, target, address, label, file)
                if following is None:
                    return
                url = join_url(target.url, following)
        raise SourceError(f"{label}: more than {self._policy.max_redirects} redirects; pass the final address.")

    async def _resolve(self, target: Target, label: str) -> list[str]:
        host = canonical_host(target.host, label)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._resolving, self._resolver, host, target.port)
        except (OSError, UnicodeError):
            raise unknown_host(target, label) from None

    async def _get(self, client: httpx.AsyncClient, target: Target, address: str, label: str, file: FileIO) -> str | None:
        """One request: the body goes to `file`; a redirect's address comes back instead."""
        # Certificates name a host without its final dot.
        url, headers, extensions = replace(target, host=canonical_host(target.host, label)).at(address)
        async with client.stream("GET", url, headers=headers, extensions=extensions) as response:
            following = check_head(response, label, self._limits.max_media_bytes)
            if following is not None:
                return following
            if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise SourceError(f"{label}: the server sent a compressed transfer although none was asked for; download it first.")
            total = 0
            async for chunk in response.aiter_raw():
                total += len(chunk)
                if total > self._limits.max_media_bytes:
                    raise too_large(label, self._limits.max_media_bytes)
                _write(file, chunk, label)
            if not total:
                raise SourceError(f"{label}: the server sent an empty file; check the address in a browser.")
        return None

    def close(self) -> None:
        self._resolving.shutdown(wait=False, cancel_futures=True)


def _write(file: FileIO, chunk: bytes, label: str) -> None:
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _no_room(label, error) from None


def _no_room(label: str, error: OSError) -> MediaUnavailableError:
    return MediaUnavailableError(f"{label}: no room for a temporary file ({one_line(error)}); try again later.")
