"""Continuous batching: one thread owns the engine, and requests join and leave between its steps.

A turn of the thread: drop who hung up or ran out of time; begin the next prompt of the queue; read a piece of a prompt (some
tiles, or a chunk of tokens, as `Pace` allows); sample one token for every running answer and decode them together. Of an
owner one prompt is read at a time: the first in line has its first token soonest. Prompts of different owners are read by
turns, so that a small picture does not wait for the whole of somebody else's video.

KV cache is one budget, counted in whole pages (`kv_pages`): running answers reserve what they may come to, finished sequences
are kept in what is left. Only an answer that is alone may take more.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from smolvlm.engines.base import Engine, SeqHandle
from smolvlm.errors import EngineError, SmolVLMError
from smolvlm.generation import Decode, LiveAnswer, Request, TokenEvent, advance
from smolvlm.inference.cached_sequence import CachedSequence
from smolvlm.inference.kv_pages import KvPages
from smolvlm.inference.prefill_task import PrefillTask
from smolvlm.inference.prefix_cache import PrefixCache
from smolvlm.inference.tile_encoder import PixelValues
from smolvlm.inference.vision_cache import VisionCache
from smolvlm.serve.engine.fair_queue import FairQueue
from smolvlm.serve.engine.job import Failed, Job, Progressed, Started
from smolvlm.serve.engine.pace import Pace
from smolvlm.serve.errors import busy, deadline_exceeded, unavailable
from smolvlm.serve.metrics import Metrics

logger = logging.getLogger(__name__)

_MOST_READING = 4  # prompts of as many owners: each turn more makes the first token of all later


@dataclass(frozen=True)
class BatchLimits:
    """max_waiting: prompts in the queue, and max_waiting_bytes of their pixels; max_running: answers decoded together;
    kv_tokens: see the module."""

    max_waiting: int
    max_waiting_bytes: int
    max_running: int
    kv_tokens: int


@dataclass(eq=False)
class _Reading:
    """A prompt that is being read."""

    job: Job
    task: PrefillTask
    queued_s: float
    began_at: float = field(default_factory=time.monotonic)

    @property
    def seq(self) -> SeqHandle:
        return self.task.sequence.seq


@dataclass(eq=False)
class _Running:
    """One answer that is being written, and all that was sampled for it."""

    job: Job
    sequence: CachedSequence
    live: LiveAnswer
    sampled: list[int]
    keep: bool  # whether its sequence is worth keeping: of several choices one is enough

    @property
    def seq(self) -> SeqHandle:
        return self.sequence.seq

    def held(self) -> CachedSequence:
        """The sequence, which knows what it holds by now."""
        self.sequence.holds([*self.job.input_ids, *self.sampled])
        return self.sequence


class Scheduler:
    """Runs jobs. `submit` and `cancel` may be called from any thread; the engine belongs to the scheduler's own."""

    def __init__(
        self,
        engine: Engine,
        pixel_values: PixelValues,
        decode_text: Decode,
        limits: BatchLimits,
        pace: Pace,
        tiles: VisionCache,
        metrics: Metrics,
    ) -> None:
        """`pixel_values(pixels)` makes the encoder's input, float32 (tiles, 3, side, side), of uint8 tiles."""
        self._engine, self._pixel_values, self._decode_text = engine, pixel_values, decode_text
        self._limits, self._pace, self._tiles, self._metrics = limits, pace, tiles, metrics
        self._context = engine.config.text.max_position_embeddings
        self._eos = frozenset(engine.config.eos_token_ids)
        self._changed = threading.Condition()
        self._waiting: FairQueue[Job] = FairQueue()
        self._waiting_bytes: dict[Job, int] = {}
        self._reading: list[_Reading] = []  # the first has the turn
        self._running: list[_Running] = []
        self._pages = KvPages(engine)
        self._most_pages = limits.kv_tokens // self._pages.page_tokens
        self._prefixes = PrefixCache(engine, self._pages)
        self._seconds_a_job = 1.0  # for Retry-After
        self._stepped_at: float | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="smolvlm-engine", daemon=True)
        metrics.gauge("waiting_prompts", "Prompts in the queue.", lambda: len(self._waiting))
        metrics.gauge("running_sequences", "Answers that are being written.", lambda: len(self._running))
        metrics.gauge("prefilling_prompts", "Prompts that are being read.", lambda: len(self._reading))
        metrics.gauge(
            "kv_tokens_reserved",
            "Tokens of KV cache that running answers may need, in whole pages.",
            lambda: self._reserved * self._pages.page_tokens,
        )
        metrics.gauge("kv_tokens_kept", "Tokens of KV cache of finished answers.", lambda: self._prefixes.tokens)
        metrics.gauge("kv_sequences_kept", "Finished answers whose KV cache is kept.", lambda: len(self._prefixes))
        metrics.gauge("tile_cache_bytes", "Bytes of encoded tiles that are kept.", lambda: self._tiles.nbytes)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether the engine's thread runs."""
        return self._thread.is_alive()

    def submit(self, job: Job) -> None:
        """Queue a job. Raises what `check_room` raises."""
        with self._changed:
            self._require_room(0, job.pixel_bytes)
            self._waiting.push(job)
            self._waiting_bytes[job] = job.pixel_bytes
            self._changed.notify()

    def check_room(self, coming: int) -> None:
        """Whether one more job may come, beside `coming` others that are on their way: asked before media are decoded.

        Raises ServeError: 429 with Retry-After when the queue is full, 503 when the server is ending.
        """
        with self._changed:
            self._require_room(coming, 0)

    def _require_room(self, coming: int, pixel_bytes: int) -> None:
        if self._closing:
            raise unavailable("the server is shutting down; ask another one, or again later.", "shutting_down")
        waiting = len(self._waiting)
        held = sum(self._waiting_bytes.values())
        if waiting + coming >= self._limits.max_waiting or (held and held + pixel_bytes > self._limits.max_waiting_bytes):
            self._metrics.refused.labels("queue_full").inc()
            wait_s = min(60.0, self._seconds_a_job * (waiting + coming))
            raise busy(f"{waiting + coming} requests are waiting already; try again later.", wait_s, "queue_full")

    def close(self, timeout_s: float = 10.0) -> None:
        """End the thread; what still runs or waits fails with 503."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread.is_alive():
            self._thread.join(timeout_s)

    @property
    def _reserved(self) -> int:
        """Pages that the answers under way may come to."""
        seqs = [running.seq for running in tuple(self._running)] + [reading.seq for reading in tuple(self._reading)]
        return self._pages.of(seqs) + self._promised

    @property
    def _promised(self) -> int:
        """Pages for the further choices of prompts that are being read: they share their prompt's whole pages."""
        jobs = [reading.job for reading in tuple(self._reading)]
        return sum(self._needed(job) - self._pages.needed(job.lengths(self._context)[0]) for job in jobs)

    def _needed(self, job: Job) -> int:
        """Pages that a job may come to, if it shares none with others."""
        lengths = job.lengths(self._context)
        again = self._pages.shared(len(job.input_ids)) * (len(lengths) - 1)
        return sum(self._pages.needed(length) for length in lengths) - again

    def _shrink(self) -> None:
        """Close kept sequences until all that may come fits."""
        self._prefixes.shrink(max(0, self._most_pages - self._promised))

    def _close(self, seq: SeqHandle) -> None:
        self._pages.end(seq)
        self._engine.close(seq)

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._closing or len(self._waiting) or self._reading or self._running):
                    self._stepped_at = None
                    self._changed.wait()
                if self._closing:
                    break
            try:
                self._turn()
            except Exception as error:  # whatever it is, those who wait must hear of it and the thread must go on
                logger.exception("a step of the engine failed")
                self._fail_all(error)
        self._fail_all(unavailable("the server is shutting down; ask another one, or again later.", "shutting_down"))

    def _turn(self) -> None:
        self._drop()
        self._begin_next()
        if self._reading:
            self._read_prompt(self._reading[0])
        if self._running:
            self._step()

    def _drop(self) -> None:
        """Let go of those whose client hung up or whose time is over."""
        with self._changed:
            gone = self._waiting.remove_if(lambda job: job.cancelled or job.expired)
            for job in gone:
                del self._waiting_bytes[job]
        for job in gone:
            self._end_unfinished(job)
        for reading in [each for each in self._reading if each.job.cancelled or each.job.expired]:
            self._reading.remove(reading)
            self._close(reading.seq)
            self._end_unfinished(reading.job)
        over = {id(r.job): r.job for r in self._running if r.job.cancelled or r.job.expired}
        for job in over.values():
            self._retire([r for r in self._running if r.job is job])
            self._end_unfinished(job)

    def _end_unfinished(self, job: Job) -> None:
        self._metrics.jobs.labels("cancelled" if job.cancelled else "expired").inc()
        if not job.cancelled:
            job.listener(Failed(deadline_exceeded(job.time_limit_s)))

    def _begin_next(self) -> None:
        """Take the next prompt of an owner of whom none is being read, if there is room for it; kept sequences make way."""
        if len(self._reading) >= _MOST_READING:
            return
        owners = {reading.job.owner for reading in self._reading}
        with self._changed:
            job = self._waiting.peek(owners)
            if job is None:
                return
            needed = self._needed(job)
            coming = sum(len(reading.job.params) for reading in self._reading)
            if (self._running or self._reading) and (
                len(self._running) + coming + len(job.params) > self._limits.max_running or self._reserved + needed > self._most_pages
            ):
                return
            self._waiting.pop(owners)
            del self._waiting_bytes[job]
        queued_s = time.monotonic() - job.submitted_at
        self._metrics.queued.observe(queued_s)
        try:
            found = self._prefixes.fork(job.owner, job.input_ids, job.tile_keys, (r.held() for r in self._running))
            # Room for the whole context: a longer prompt that begins like this one forks the sequence, capacity and all.
            sequence, parent = found or (CachedSequence.open(self._engine, self._context, job.owner), None)
            task = PrefillTask(sequence, job.input_ids, job.tiles, self._pixel_values, self._tiles)
            self._reading.insert(0, _Reading(job, task, queued_s))  # it has not had a turn yet
            self._pages.begin(sequence.seq, job.lengths(self._context)[0], parent.seq if parent else None, task.cached_tokens)
            self._shrink()
        except Exception as error:
            self._fail(job, error)

    def _read_prompt(self, reading: _Reading) -> None:
        """Read a piece; the next prompt has its turn then."""
        decoding = bool(self._running)
        job, task = reading.job, reading.task
        self._reading.remove(reading)
        try:
            started = time.perf_counter()
            if task.encoder.left:
                count = self._pace.tiles(decoding, time.monotonic() - reading.began_at)
                if count:
                    task.encoder.step(count)
                    self._pace.encoded(count, time.perf_counter() - started)
            else:
                tokens = task.prefill(self._pace.chunk(decoding))
                self._pace.prefilled(tokens, time.perf_counter() - started)
            if task.done:
                self._begin_answers(reading)
            else:
                self._reading.append(reading)
        except Exception as error:
            self._close(reading.seq)
            self._retire([r for r in self._running if r.job is job], keep=False)
            self._fail(job, error)

    def _begin_answers(self, reading: _Reading) -> None:
        job, task, logits = reading.job, reading.task, reading.task.logits
        assert logits is not None, "a prompt that is done has logits"
        self._metrics.prompt_tokens.inc(len(job.input_ids))
        self._metrics.cached_tokens.inc(task.cached_tokens)
        self._metrics.tiles_encoded.inc(task.encoder.encoded)
        self._metrics.tiles_cached.inc(len(job.tiles) - task.encoder.encoded)
        lengths = job.lengths(self._context)
        for i, (params, grammar) in enumerate(zip(job.params, job.grammars, strict=True)):
            sequence = task.sequence
            if i:
                sequence = sequence.fork(len(job.input_ids))
                self._pages.begin(sequence.seq, lengths[i], reading.seq, len(job.input_ids))
            request = Request(sequence.seq, logits, job.input_ids, params, grammar)
            live = LiveAnswer(i, request, self._decode_text, self._eos, self._context)
            self._running.append(_Running(job, sequence, live, [], keep=i == 0))
        job.listener(Started(task.cached_tokens, task.encoder.encoded, reading.queued_s))

    def _step(self) -> None:
        """One token for every running answer; those that end leave before the decode."""
        now = time.monotonic()
        if self._stepped_at is not None:
            self._metrics.step.observe(now - self._stepped_at)
        self._sample(now)
        batch = [running.live for running in self._running]
        self._stepped_at = time.monotonic() if batch else None
        if batch:
            started = time.perf_counter()
            self._advance(batch)
            self._pace.decoded(len(batch), time.perf_counter() - started)
            self._metrics.batch.observe(len(batch))

    def _sample(self, now: float) -> None:
        fresh: dict[int, tuple[Job, list[TokenEvent]]] = {}
        for running in tuple(self._running):
            if running not in self._running:  # it left with another choice of its job, which failed
                continue
            job = running.job
            try:
                events = list(running.live.step(cancelled=False))
            except Exception as error:
                self._fail_running(job, error)
                fresh.pop(id(job), None)
                continue
            if not running.sampled and running.live.index == 0:
                self._metrics.first_token.observe(now - job.submitted_at)
            running.sampled += [event.token_id for event in events]
            self._metrics.completion_tokens.inc(len(events))
            fresh.setdefault(id(job), (job, []))[1].extend(events)
        self._retire([running for running in self._running if running.live.finished])
        still = {id(running.job) for running in self._running}
        for job, events in fresh.values():
            if id(job) not in still:
                self._metrics.jobs.labels("finished").inc()
                self._seconds_a_job += 0.1 * ((time.monotonic() - job.submitted_at) / self._limits.max_running - self._seconds_a_job)
            job.listener(Progressed(events))

    def _advance(self, batch: list[LiveAnswer]) -> None:
        """Decode together; where that fails, one by one, so that only the culprit's job ends."""
        try:
            advance(self._engine, batch)
        except EngineError:
            logger.warning("a decode step of %d sequences failed; trying them one by one", len(batch), exc_info=True)
            self._prefixes.shrink(0)
            for running in tuple(self._running):
                if not running.live.undecoded or running not in self._running:
                    continue
                try:
                    advance(self._engine, [running.live])
                except EngineError as error:
                    self._fail_running(running.job, error)

    def _retire(self, over: Sequence[_Running], keep: bool = True) -> None:
        """Take answers out of the batch; their sequences are kept for prompts that begin alike, or closed."""
        for running in over:
            self._running.remove(running)
            if keep and running.keep:
                self._prefixes.put(running.held())
            else:
                self._close(running.seq)
        if over:
            self._shrink()

    def _fail_running(self, job: Job, error: BaseException) -> None:
        self._retire([running for running in self._running if running.job is job], keep=False)
        self._fail(job, error)

    def _fail(self, job: Job, error: BaseException) -> None:
        if not isinstance(error, SmolVLMError):
            logger.error("a job failed", exc_info=error)
        self._metrics.jobs.labels("failed").inc()
        job.listener(Failed(error))

    def _fail_all(self, error: BaseException) -> None:
        with self._changed:
            waiting = self._waiting.remove_if(lambda _: True) if self._closing else []
            for job in waiting:
                del self._waiting_bytes[job]
        for job in waiting:
            self._fail(job, error)
        while self._reading:
            reading = self._reading.pop()
            self._close(reading.seq)
            self._fail(reading.job, error)
        for job in {id(running.job): running.job for running in self._running}.values():
            self._fail_running(job, error)
