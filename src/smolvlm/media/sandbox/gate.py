"""The one door for media of requests: under limits, from allowed places only, decoded in a process that may die.

async with MediaGate(processor.config, MediaLimits(), RemotePolicy()) as gate:
    messages = parse_messages(body["messages"])           # ImagePart and VideoPart hold what was sent
    prepared = await gate.open_all(media_parts_of(messages))  # in order
    inputs = processor.build(messages, prepared)              # equal to what processor(messages) gives
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

from smolvlm.config import ProcessorConfig
from smolvlm.errors import ImageError, MediaUnavailableError, ParamsError, PromptError, SmolVLMError, SourceError, VideoError
from smolvlm.media.fetch.download import Fetcher, Resolver
from smolvlm.media.fetch.policy import RemotePolicy
from smolvlm.media.fetch.urls import resolve
from smolvlm.media.kinds import MediaKind
from smolvlm.media.labels import short
from smolvlm.media.prepared import MediaInfo, PreparedMedia
from smolvlm.media.sandbox.limits import MediaLimits, StoredFile
from smolvlm.media.sandbox.pool import WorkerPool
from smolvlm.media.sandbox.wire import Job, Reply, tiles_of
from smolvlm.media.sources import Source, SourcePolicy, open_source
from smolvlm.options.media import MediaOptions
from smolvlm.temporary import delete_stale

__all__ = ["MediaGate", "MediaLimits", "MediaUnavailableError", "RemotePolicy", "StoredFile"]

logger = logging.getLogger(__name__)

_ERRORS: dict[str, type[SmolVLMError]] = {e.__name__: e for e in (SourceError, ImageError, VideoError, ParamsError)}
_IN_THE_LOOP_BYTES = 1 << 16  # a longer data URL is decoded in a thread


class MediaPart(Protocol):
    """A picture or video of a request: `prompt.messages.ImagePart` and `VideoPart`."""

    @property
    def kind(self) -> Literal["image", "video"]: ...
    @property
    def source(self) -> Any: ...
    @property
    def options(self) -> Mapping[str, Any]: ...


class MediaGate:
    """Opens the media of requests: data URLs, http(s) URLs under a policy, uploads that the server stored itself.

    Never a path or any other scheme, whoever writes it. What comes back is what `Processor.prepare_media` gives for the same
    bytes, bit for bit. Every refusal is a SourceError, ImageError, VideoError, ParamsError or PromptError of one sentence;
    MediaUnavailableError means that the server, not the request, is in trouble. Belongs to one event loop.

    resolver: gives all addresses of a host; the system's unless a test brings its own.
    """

    def __init__(
        self, config: ProcessorConfig, limits: MediaLimits | None = None, policy: RemotePolicy | None = None, resolver: Resolver = resolve
    ) -> None:
        self.config = config
        self.limits = limits or MediaLimits()
        self.policy = policy or RemotePolicy()
        self._pool = WorkerPool(config, self.limits)
        self._remote = Fetcher(self.limits.source, self.policy, resolver, self.limits.max_downloads)
        # What a string in a request may be without a network: a data URL.
        self._inline = SourcePolicy(allow_paths=False, allow_urls=False, limits=self.limits.source)

    @property
    def workers_lost(self) -> int:
        """Decoding processes that a file ended, or that somebody killed, since the start."""
        return self._pool.lost

    @property
    def missing_limits(self) -> tuple[str, ...]:
        """Limits of the decoding processes that this system does not have, known after `start`."""
        return self._pool.missing

    async def start(self) -> None:
        """Warm up. Raises MediaUnavailableError when no decoding process can be started."""
        await asyncio.to_thread(delete_stale)
        await self._pool.start()

    async def close(self) -> None:
        """End the decoding processes, busy ones too."""
        self._remote.close()
        await self._pool.close()

    async def __aenter__(self) -> MediaGate:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open_all(
        self,
        parts: Sequence[MediaPart],
        options: MediaOptions | None = None,
        owner: str = "",
        wrapped: Callable[[int, SmolVLMError], SmolVLMError] | None = None,
    ) -> list[PreparedMedia]:
        """All media of one request of `owner`, in order. The first that fails ends the others; `wrapped` gives what is raised
        for its number and its error."""
        if len(parts) > self.limits.max_media:
            raise PromptError(f"the request holds {len(parts)} media, more than the limit of {self.limits.max_media}; send fewer.")

        async def one(number: int, part: MediaPart) -> PreparedMedia:
            try:
                return await self.open(part, options, owner)
            except SmolVLMError as error:
                raise error if wrapped is None else wrapped(number, error) from None

        tasks = [asyncio.ensure_future(one(number, part)) for number, part in enumerate(parts)]
        try:
            return list(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def open(self, part: MediaPart, options: MediaOptions | None = None, owner: str = "") -> PreparedMedia:
        """One picture or video, decoded, sampled and tiled. A part's own options come before `options`.

        owner: whose turn at the decoding processes it takes. `part.source` is a data URL, an http(s) URL, bytes that stood
        in the request, or a StoredFile.
        """
        want = part.kind
        options = self._within_limits(dataclasses.replace(options or MediaOptions(), **part.options))
        with await self._source(part.source, want) as source:
            reply, tiles = await self._run(want, source, dataclasses.asdict(options), owner)
        info = MediaInfo(
            want,
            source.label,
            reply.tile_count,
            reply.rows,
            reply.cols,
            tuple(reply.timestamps_s),
            reply.duration_s,
            reply.decoded_frames,
            tuple(reply.warnings),
        )
        return PreparedMedia(info, tiles_of(reply, tiles, self.config.tile_size))

    async def kind(self, file: StoredFile, owner: str = "") -> MediaKind:
        """Whether an upload is a picture or a video, by its content. Raises SourceError when it is neither."""
        with self._stored(file) as source:
            reply, _ = await self._run("kind", source, {}, owner)
        assert reply.kind is not None, "read_reply checked it"
        return reply.kind

    def _within_limits(self, options: MediaOptions) -> MediaOptions:
        limit = self.limits.max_frames
        if options.max_frames is not None and options.max_frames > limit:
            raise ParamsError(f"max_frames={options.max_frames}: this server samples at most {limit} frames of a video.")
        return dataclasses.replace(options, max_frames=min(options.max_frames or self.config.max_frames, limit))

    async def _source(self, given: Any, want: str) -> Source:
        """What was sent, within reach of a worker."""
        if isinstance(given, StoredFile):
            return self._stored(given)
        if isinstance(given, bytes):
            if not 0 < len(given) <= self.limits.source.max_stream_bytes:
                raise self._wrong_size(f"the {want}", len(given))
            return Source(f"the {want} ({len(given)} bytes)", data=given)
        if not isinstance(given, str):
            raise SourceError(f"a {type(given).__name__} is no {want} that a request can hold; send a data URL.")
        if given[:8].lower().startswith(("http://", "https://")):
            return await self._remote.fetch(given)
        if given[:5].lower() != "data:":
            raise SourceError(
                f"{short(given)}: paths and addresses of this kind are not opened; send a data URL, an http(s) URL or an upload."
            )
        if len(given) <= _IN_THE_LOOP_BYTES:
            source = open_source(given, self._inline)
        else:
            source = await asyncio.to_thread(open_source, given, self._inline)
        assert source.data is not None, "a data URL is held in memory"
        # A name of its own: the URL holds the beginning of the picture, and labels reach logs.
        return Source(f"the {want} ({len(source.data)} bytes)", data=source.data)

    def _stored(self, file: StoredFile) -> Source:
        try:
            size = file.path.stat().st_size
        except OSError:
            raise SourceError(f"{file.label}: it is no longer stored here; upload it again.") from None
        if not 0 < size <= self.limits.source.max_stream_bytes:
            raise self._wrong_size(file.label, size)
        return Source(file.label, path=Path(file.path))

    def _wrong_size(self, label: str, size: int) -> SourceError:
        if not size:
            return SourceError(f"{label} is empty; send the content of a picture or video file.")
        return SourceError(f"{label}: {size} bytes are more than the limit of {self.limits.source.max_stream_bytes}; send less.")

    async def _run(
        self, want: Literal["image", "video", "kind"], source: Source, options: dict[str, Any], owner: str
    ) -> tuple[Reply, bytes]:
        job = Job(want=want, label=source.label, size=source.size, options=options)
        reply, tiles = await self._pool.run(job, source, owner)
        if reply.error is not None:
            raise _ERRORS.get(reply.error, SourceError)(short(reply.message, 500))
        if want != "kind" and (reply.kind != want or not reply.tile_count):
            raise MediaUnavailableError(f"{source.label}: the decoding process answered something else; try again.")
        return reply, tiles
