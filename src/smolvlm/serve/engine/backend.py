"""A conversation -> a prompt -> a job of the scheduler -> its updates, on the event loop."""

from __future__ import annotations

import asyncio
import functools
import gc
import hashlib
import json
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from smolvlm.errors import EngineError, PromptError, SmolVLMError
from smolvlm.generation import GenerationParams, Grammar
from smolvlm.inference.prompt import Medium, Prompt
from smolvlm.inference.tiles import Tile, tile_key
from smolvlm.inference.vision_cache import VisionCache
from smolvlm.media.fetch.policy import RemotePolicy
from smolvlm.media.sandbox.gate import MediaGate
from smolvlm.media.sandbox.limits import MediaLimits, StoredFile
from smolvlm.processor import MediaInfo
from smolvlm.prompt.messages import ImagePart, Message, VideoPart, parse_messages
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.engine.job import Failed, Job, Started, Update
from smolvlm.serve.engine.pace import Pace
from smolvlm.serve.engine.scheduler import BatchLimits, Scheduler
from smolvlm.serve.engine.schema_process import SchemaProcesses
from smolvlm.serve.metrics import Metrics
from smolvlm.vlm import SmolVLM

_REMEMBERED_MEDIA = 4096
_IN_THE_LOOP_CHARS = 1 << 18  # hashing more is left to a thread


@dataclass(frozen=True)
class Ask:
    """What a request wants. `schema`: None, a JSON schema, or {} for any JSON object; `owner`: whose turn it takes.

    media: each picture and video of `messages` by its place in the client's request, in order. refusal: what the client is told
    when the medium at that place cannot be opened.
    """

    messages: Sequence[Message]
    params: tuple[GenerationParams, ...]
    owner: str
    media: Mapping[str, ImagePart | VideoPart]
    refusal: Callable[[str, SmolVLMError], SmolVLMError]
    schema: dict[str, Any] | None = None


class Asked:
    """A job under way: an asynchronous iterator over its updates, which ends with the job or after `cancel`.

    Belongs to one event loop. Iterating raises what the job failed of.
    """

    def __init__(self, prompt: Prompt, per_tile: int, choices: int) -> None:
        self.prompt_tokens, self.image_tokens, self.media = len(prompt.input_ids), len(prompt.tiles) * per_tile, len(prompt.media)
        self.warnings = prompt.warnings
        self.started: Started | None = None
        self._unfinished = choices
        self._loop = asyncio.get_running_loop()
        self._updates: asyncio.Queue[Update | None] = asyncio.Queue()
        self._job: Job | None = None

    def listen(self, update: Update) -> None:
        """Called by the engine's thread."""
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._updates.put_nowait, update)

    def begin(self, job: Job) -> None:
        self._job = job

    def cancel(self) -> None:
        """Free the sequences at the next step; the iteration ends."""
        if self._job is not None:
            self._job.cancel()
        self._updates.put_nowait(None)

    def __aiter__(self) -> AsyncIterator[Update]:
        return self

    async def __anext__(self) -> Update:
        if self._unfinished <= 0:
            raise StopAsyncIteration
        update = await self._updates.get()
        if update is None:
            self._unfinished = 0
            raise StopAsyncIteration
        if isinstance(update, Failed):
            self._unfinished = 0
            raise update.error
        if isinstance(update, Started):
            self.started = update
        else:
            self._unfinished -= sum(event.finish_reason is not None for event in update.events)
        return update


class Backend:
    """The model behind the routes: media gate, caches, prompt builder and scheduler. Belongs to one event loop."""

    def __init__(self, model: SmolVLM, config: ServeConfig, metrics: Metrics) -> None:
        self.model, self.config, self.metrics = model, config, metrics
        self.name = config.served_name or model.name
        engine_config = model.engine.config
        self.context = engine_config.text.max_position_embeddings
        limits = MediaLimits(max_media=config.max_media, max_frames=config.max_frames, workers=config.media_workers)
        self.gate = MediaGate(model.processor.config, limits, RemotePolicy(hosts=config.remote_hosts))
        tile_bytes = engine_config.image_seq_len * engine_config.text.hidden_size * 4
        self._tiles = VisionCache(config.tile_cache_bytes, tile_bytes)
        self._seen: OrderedDict[str, tuple[MediaInfo, tuple[str, ...]]] = OrderedDict()
        self._coming = 0  # requests whose prompt is being made
        self._schemas = SchemaProcesses(model.processor.tokenizer.json, engine_config.text.vocab_size, engine_config.eos_token_ids)
        self.scheduler = Scheduler(
            model.engine,
            model.runtime.pixel_values,
            model.processor.tokenizer.answer_text,
            BatchLimits(config.max_waiting, config.max_waiting_bytes, config.max_running, config.kv_tokens),
            Pace(chunk=config.prefill_chunk, tiles=config.encode_tiles, stall_ratio=config.stall_ratio, patience_s=config.patience_s),
            self._tiles,
            metrics,
        )
        metrics.gauge("media_workers_lost", "Decoding processes that died.", lambda: self.gate.workers_lost)
        metrics.gauge("schema_workers_lost", "Compiling processes that died.", lambda: self._schemas.lost)
        self.ready = False

    async def start(self) -> None:
        """Start the decoding processes and the engine's thread, and warm both up; `ready` is True afterwards."""
        await asyncio.gather(self.gate.start(), self._schemas.start())
        self.scheduler.start()
        await self._warm_up()
        gc.collect()
        gc.freeze()  # what is here stays: a full collection that looks through it again stalls every answer
        self.ready = True

    async def close(self) -> None:
        """End everything; jobs still under way fail with 503."""
        self.ready = False
        await asyncio.to_thread(self.scheduler.close)
        await self._schemas.close()
        await self.gate.close()
        gc.unfreeze()  # frozen, the model in its cycles of references would never be freed

    def check_room(self) -> None:
        """Whether one more request may come. Raises ServeError 429 with Retry-After, and 503 when the server is ending."""
        self.scheduler.check_room(self._coming)

    async def ask(self, ask: Ask) -> Asked:
        """Open the media, build the prompt and queue it. Raises ServeError or the SmolVLMError of what is wrong with it."""
        self.check_room()
        self._coming += 1
        try:
            media = await self._media(ask)
            prompt = await asyncio.to_thread(self.model.runtime.word, parse_messages(ask.messages), media)
            self.model.runtime.check_room(prompt, max(params.max_new_tokens for params in ask.params))
            grammars = await self._compile(ask)
        finally:
            self._coming -= 1
        return self._submit(prompt, ask.params, grammars, ask.owner)

    def token_text(self, token_id: int) -> str:
        """The text of one token, special ones spelled out."""
        return self.model.processor.tokenizer.decode([token_id], skip_special_tokens=False)

    def _submit(self, prompt: Prompt, params: tuple[GenerationParams, ...], grammars: tuple[Grammar | None, ...], owner: str) -> Asked:
        asked = Asked(prompt, self.model.engine.config.image_seq_len, len(params))
        job = Job(owner, prompt.input_ids, prompt.tiles, params, grammars, asked.listen, self.config.request_timeout_s)
        self.scheduler.submit(job)
        asked.begin(job)
        return asked

    async def _compile(self, ask: Ask) -> tuple[Grammar | None, ...]:
        if ask.schema is None:
            return (None,) * len(ask.params)
        return await self._schemas.grammars(ask.schema, len(ask.params), ask.owner)

    async def _media(self, ask: Ask) -> list[Medium]:
        """The media of a request, in order."""
        named = ask.media
        parts = list(named.values())
        if len(parts) > self.config.max_media:
            raise PromptError(f"the request holds {len(parts)} media, more than the limit of {self.config.max_media}; send fewer.")
        keys = [await _content_key(part) for part in parts]
        known = [self._recall(key) for key in keys]
        missing = [place for place, found in zip(named, known, strict=True) if found is None]
        found_now = await self.gate.open_all(
            [named[place] for place in missing], owner=ask.owner, wrapped=lambda number, error: ask.refusal(missing[number], error)
        )
        opened = iter(found_now)
        media: list[Medium] = []
        for key, medium in zip(keys, known, strict=True):
            if medium is None:
                fresh = await asyncio.to_thread(self.model.processor.looked_at, next(opened))
                medium = (await asyncio.to_thread(self.model.runtime.media, [fresh]))[0]
                self._remember(key, medium)
            media.append(medium)
        return media

    def _recall(self, key: str | None) -> Medium | None:
        """A medium that was decoded before, if all its tiles are still encoded."""
        if key is None or key not in self._seen:
            return None
        self._seen.move_to_end(key)
        info, tile_keys = self._seen[key]
        embeds = self._tiles.get_all(tile_keys)
        if embeds is None:
            return None
        return Medium(info, tuple(Tile(name, embeds=handle) for name, handle in zip(tile_keys, embeds, strict=True)))

    def _remember(self, key: str | None, medium: Medium) -> None:
        if key is not None:
            self._seen[key] = medium.info, tuple(tile.key for tile in medium.tiles)
            while len(self._seen) > _REMEMBERED_MEDIA:
                self._seen.popitem(last=False)

    async def _warm_up(self) -> None:
        """One grey tile and a few tokens: buffers are allocated, grammar tables built, and the pace is measured."""
        processor = self.model.processor
        side = processor.config.tile_size
        grey = np.full((side, side, 3), 127, np.uint8)
        info = MediaInfo("image", "warm-up", 1)
        content = [{"type": "image", "image": grey}, {"type": "text", "text": "Warm up. " * 8}]
        messages = parse_messages([{"role": "user", "content": content}])
        prompt = self.model.runtime.word(messages, [Medium(info, (Tile(tile_key(grey), grey),))])
        params = GenerationParams(max_new_tokens=8, ignore_eos=True, loop_guard=False)
        asked = self._submit(prompt, (params,), (None,), "warm-up")
        async for _ in asked:
            pass
        if asked.started is None:
            raise EngineError("the model did not answer while it was warmed up.")


async def _content_key(part: ImagePart | VideoPart) -> str | None:
    """What tells a medium and its options from all others; None for an address, whose content may change."""
    source = part.source
    if isinstance(source, StoredFile):
        name = f"file:{source.path}"
    elif isinstance(source, str) and source[:5].lower() == "data:":
        hashing = functools.partial(_digest, source)
        name = hashing() if len(source) < _IN_THE_LOOP_CHARS else await asyncio.to_thread(hashing)
    else:
        return None
    return f"{type(part).__name__} {json.dumps(dict(part.options), sort_keys=True)} {name}"


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
