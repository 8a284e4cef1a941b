"""An http(s) URL -> a temporary file, under a policy: the one way for the library, batches and the server.

It never blocks an event loop, ends when its caller does, and has one deadline for everything: names, connections, headers
that drip and bodies that never end.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
from collections.abc import Callable
from dataclasses import replace
from io import FileIO
from typing import TypeAlias

import httpx

from smolvlm.errors import MediaUnavailableError, SourceError
from smolvlm.media.fetch.policy import FetchPolicy
from smolvlm.media.fetch.urls import HEADERS, Target, checked_address, join_url, parse_url, resolve, unknown_host
from smolvlm.media.labels import one_line, short
from smolvlm.media.limits import Limits
from smolvlm.media.sources import Source
from smolvlm.temporary import make_file

Resolver: TypeAlias = Callable[[str, int], list[str]]
_MAX_AT_ONCE = 8
_REDIRECTS = {301, 302, 303, 307, 308}
_TICK_S = 0.2  # a wait without an end hears no Ctrl-C on some systems


class Fetcher:
    """Fetches what the policy allows. `resolver(host, port)` gives all addresses of a name; it may block."""

    def __init__(self, limits: Limits, policy: FetchPolicy, resolver: Resolver = resolve, max_at_once: int = _MAX_AT_ONCE) -> None:
        self._limits = limits
        self._policy = policy
        self._resolver = resolver
        # Names have threads of their own: a resolver that hangs must not hold up the rest of the server.
        self._resolving = concurrent.futures.ThreadPoolExecutor(max_at_once, thread_name_prefix="smolvlm-names")
        self._free = asyncio.Semaphore(max_at_once)

    async def fetch(self, url: str) -> Source:
        """The content of `url`; closing the source deletes the file. Raises SourceError.

        MediaUnavailableError when no disk space is left for the file.
        """
        label = short(url)
        self._policy.check(parse_url(url), label)  # what is refused anyway waits for nobody
        try:
            return await asyncio.wait_for(self._fetch(url, label), self._limits.max_download_s)
        except asyncio.TimeoutError:
            raise SourceError(f"{label}: not finished after {self._limits.max_download_s:g} s; download it first.") from None

    def fetch_now(self, url: str) -> Source:
        """`fetch` for callers without an event loop, or inside one that they block. It runs in a thread of its own."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(self.fetch(url))
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="smolvlm-download") as thread:
            try:
                done = thread.submit(_run, loop, task)
                while not concurrent.futures.wait([done], timeout=_TICK_S).done:
                    pass
            except BaseException:  # Ctrl-C
                loop.call_soon_threadsafe(task.cancel)
                raise
            return done.result()

    async def _fetch(self, url: str, label: str) -> Source:
        async with self._free:
            try:
                handle, path = make_file()
            except OSError as error:
                raise _disk_full(label, error) from None
            # From here on the source owns the file: whatever ends this coroutine, the file goes with it.
            source = Source(label, path=path, temporary=True)
            try:
                with os.fdopen(handle, "wb", buffering=0) as file:  # a full disk shows at the write
                    await self._follow(url, label, file)
            except BaseException as error:
                source.close()
                if (known := _download_error(label, error, self._limits.timeout_s)) is not None:
                    raise known from None
                raise
            return source

    async def _follow(self, url: str, label: str, file: FileIO) -> None:
        proxies = not self._policy.pinned  # of the environment
        async with httpx.AsyncClient(follow_redirects=False, timeout=self._limits.timeout_s, trust_env=proxies) as client:
            for _ in range(self._limits.max_redirects + 1):
                target = parse_url(url)
                url, headers, extensions = await self._allowed(target, label)
                request = client.build_request("GET", url, headers=headers, extensions=extensions)
                following = await self._get(client, request, label, file)
                if following is None:
                    return
                url = join_url(target.url, following)
        raise SourceError(f"{label}: more than {self._limits.max_redirects} redirects; pass the final address.")

    async def _allowed(self, target: Target, label: str) -> tuple[str, dict[str, str], dict[str, str]]:
        """URL, headers and httpx extensions of a request that goes where the policy allows. Raises SourceError."""
        host = self._policy.check(target, label)
        if not self._policy.pinned:
            return target.url, dict(HEADERS), {}
        try:
            addresses = await asyncio.get_running_loop().run_in_executor(self._resolving, self._resolver, host, target.port)
        except (OSError, UnicodeError):
            raise unknown_host(target, label) from None
        # The very address that was checked: a second question to the resolver could have another answer.
        return replace(target, host=host).at(checked_address(addresses, label, self._policy.accepts))

    async def _get(self, client: httpx.AsyncClient, request: httpx.Request, label: str, file: FileIO) -> str | None:
        """One request: the body goes to `file`; a redirect's address comes back instead."""
        response = await client.send(request, stream=True)
        try:
            following = _check_head(response, label, self._limits.max_download_bytes)
            if following is not None:
                return following
            if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
                raise SourceError(f"{label}: the server sent a compressed transfer although none was asked for; download it first.")
            total = 0
            async for chunk in response.aiter_raw():
                total += len(chunk)
                if total > self._limits.max_download_bytes:
                    raise _too_large(label, self._limits.max_download_bytes)
                _write(file, chunk, label)
            if not total:
                raise SourceError(f"{label}: the server sent an empty file; check the address in a browser.")
        finally:
            await response.aclose()
        return None

    def close(self) -> None:
        self._resolving.shutdown(wait=False, cancel_futures=True)


def _run(loop: asyncio.AbstractEventLoop, task: asyncio.Task[Source]) -> Source:
    try:
        return loop.run_until_complete(task)
    finally:
        loop.run_until_complete(loop.shutdown_asyncgens())
        loop.close()


def _write(file: FileIO, chunk: bytes, label: str) -> None:
    left = memoryview(chunk)
    try:
        while left:
            left = left[file.write(left) :]
    except OSError as error:
        raise _disk_full(label, error) from None


def _disk_full(label: str, error: OSError) -> MediaUnavailableError:
    return MediaUnavailableError(f"{label}: no room for a temporary file ({one_line(error)}); try again later.")


def _download_error(label: str, error: BaseException, timeout_s: float) -> SourceError | None:
    """The sentence for what went wrong on the network; None for anything else."""
    if isinstance(error, httpx.TimeoutException):
        return SourceError(f"{label}: no answer within {timeout_s:g} s; try again or download it first.")
    if isinstance(error, httpx.HTTPError | httpx.InvalidURL | httpx.StreamError | OSError | UnicodeError):
        return SourceError(f"{label}: the download failed ({one_line(error)}); check the address and the network.")
    return None


def _check_head(response: httpx.Response, label: str, max_bytes: int) -> str | None:
    """A redirect's address, or None when the body may be read. Raises SourceError for any other answer."""
    if response.status_code in _REDIRECTS and "location" in response.headers:
        return str(response.headers["location"])
    if response.status_code != 200:
        raise SourceError(f"{label}: the server answered {response.status_code}; check the address in a browser.")
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise _too_large(label, max_bytes)
    return None


def _too_large(label: str, max_bytes: int) -> SourceError:
    return SourceError(f"{label}: more than the limit of {max_bytes} bytes; download it and cut it first, or raise the limit.")
