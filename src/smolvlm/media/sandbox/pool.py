"""Decoding processes: a fixed number of them, warm, each replaced as soon as it is lost.

A worker that dies of its job, or spends all its processor time, is the file's fault and ends in one sentence. One that is killed from
outside (kill -9, the system short of memory) is not: its job is done once more by another.

Owners take turns at them (fair_slots.py): whoever sends much waits for itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import Any

from smolvlm.config import ProcessorConfig
from smolvlm.errors import ImageError, MediaBusyError, MediaUnavailableError, SmolVLMError, VideoError
from smolvlm.media.sandbox.child_process import ChildDied
from smolvlm.media.sandbox.cost import HEAD_BYTES, expected_seconds
from smolvlm.media.sandbox.fair_slots import FairSlots, LineFullError
from smolvlm.media.sandbox.limits import MediaLimits
from smolvlm.media.sandbox.process import Worker
from smolvlm.media.sandbox.wire import Job, Reply, WireError
from smolvlm.media.sources import Source

logger = logging.getLogger(__name__)

_JOBS_A_WORKER = 500  # then a fresh one: decoders leak a little, and memory goes to pieces
_SHORT_S, _SOON_S = 0.05, 0.1  # what should take less than the first has any core for the second
# Signals that come from outside. All others are a decoder that crashed or spent its processor time.
_FROM_OUTSIDE = {-signal.SIGTERM, -signal.SIGINT, -9}


@dataclass
class _Turn:
    """A place of an owner at the processes, and the work that it was taken for, in seconds."""

    owner: str
    expected_s: float
    since: float


class WorkerPool:
    """`limits.workers` processes, but at least two; a job waits up to `limits.queue_s` for one of them.

    One owner has all but one at most: they share a core, so that more of them would bring an owner little, and a
    neighbour's small picture always finds one.
    """

    def __init__(self, config: ProcessorConfig, limits: MediaLimits) -> None:
        self._config = config
        self._limits = limits
        # A picture has at most (4096 / side)**2 tiles and itself, a video one a frame.
        self._max_tiles = max(limits.max_frames, (4096 // config.tile_size + 1) ** 2 + 1)
        self._count = max(2, limits.workers)
        self._slots = FairSlots(self._count, limits.owner_waiting)
        self._idle: list[Worker] = []
        self._living: set[Worker] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self.lost = 0  # workers that died or were killed over a job
        self.missing: tuple[str, ...] = ()

    async def start(self) -> None:
        """Start all workers. Raises MediaUnavailableError when one cannot be started."""
        if self._idle:
            return
        self._idle = list(await asyncio.gather(*(self._started() for _ in range(self._count))))
        self.missing = tuple(self._idle[0].missing)
        if self.missing:
            logger.warning(
                "this system does not limit %s of the decoding processes; the time that each file may take is limited all the same",
                ", ".join(self.missing),
            )

    async def run(self, job: Job, source: Source, owner: str) -> tuple[Reply, bytes]:
        """Do one job of `owner`, whose medium is `source`.

        Raises ImageError or VideoError for what ends a worker, MediaUnavailableError for lost workers.
        """
        expected_s = expected_seconds(source.head(HEAD_BYTES), source.size)
        for _ in range(2):
            turn, worker = await self._take(owner, expected_s)
            try:
                with worker.soon_done(_SOON_S) if expected_s < _SHORT_S else contextlib.nullcontext():
                    answer = await asyncio.wait_for(
                        worker.ask(job, source, self._config.tile_size, self._max_tiles), self._limits.stalled_s
                    )
            except asyncio.TimeoutError:  # it did not use up its processor time: a busy machine is no fault of the file
                self._replace(worker, turn)
                raise MediaUnavailableError(
                    f"{job.label}: not read after {self._limits.stalled_s:g} s; the server is too "
                    "busy; try again later, or send a smaller file."
                ) from None
            except ChildDied as died:
                self._replace(worker, turn)
                logger.warning("a media worker was lost: %s", died)
                if died.returncode in _FROM_OUTSIDE:
                    continue
                if died.returncode == -getattr(signal, "SIGXCPU", 0):
                    raise self._blame(job, f"takes more than {self._limits.decode_s:g} s of a processor") from None
                raise self._blame(job, "crashes the decoder") from None
            except WireError as error:
                self._replace(worker, turn)
                logger.error("a media worker broke the protocol: %s", error)
                raise self._blame(job, "crashes the decoder") from None
            except BaseException:  # the request was given up
                self._replace(worker, turn)
                raise
            if answer[0].out_of_memory or worker.jobs_done >= _JOBS_A_WORKER:
                self._replace(worker, turn, lost=answer[0].out_of_memory)
            else:
                self._idle.append(worker)
                self._end_turn(turn)
            if answer[0].detail:
                logger.error("a media worker met an error that nobody foresaw: %s", answer[0].detail)
            return answer
        raise MediaUnavailableError(
            f"{job.label}: two decoding processes were lost while reading it, for no fault of the file; try again later."
        )

    async def close(self) -> None:
        """End all workers, busy ones too."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._idle.clear()
        await asyncio.gather(*(self._end(worker) for worker in list(self._living)))

    def _blame(self, job: Job, what: str) -> SmolVLMError:
        kind = VideoError if job.want == "video" else ImageError
        return kind(f"{job.label}: reading it {what}; save it again in a common format, or send a smaller one.")

    async def _started(self) -> Worker:
        try:
            worker = await Worker.start(self._config, self._limits)
            self._living.add(worker)
            return worker
        except (OSError, ChildDied, WireError, ValueError, KeyError, asyncio.TimeoutError) as error:
            raise MediaUnavailableError(f"no decoding process can be started ({type(error).__name__}: {error}); try again later.") from None

    async def _end(self, worker: Worker) -> None:
        await worker.end()
        self._living.discard(worker)

    async def _take(self, owner: str, expected_s: float) -> tuple[_Turn, Worker]:
        if self._closed:
            raise MediaUnavailableError("the server is shutting down; try again later.")
        try:
            await self._slots.take(owner, expected_s, self._limits.queue_s)
        except LineFullError:
            raise MediaBusyError(
                f"{self._limits.owner_waiting} pictures and videos of this key wait to be decoded, as many as may; wait for their answers."
            ) from None
        except TimeoutError:
            raise MediaUnavailableError(
                f"all decoding processes that one key may have were busy for {self._limits.queue_s:g} s; try again later."
            ) from None
        turn = _Turn(owner, expected_s, time.monotonic())
        while self._idle:
            worker = max(self._idle, key=lambda each: each.jobs_done)  # the warmest
            self._idle.remove(worker)
            if worker.alive:
                return turn, worker
            self._do(self._end(worker))  # killed while it slept
        try:
            return turn, await self._started()
        except BaseException:
            self._end_turn(turn)
            raise

    def _end_turn(self, turn: _Turn) -> None:
        """Free the place. What counts from now on is how long it was held: a file's own numbers may lie."""
        self._slots.give_back(turn.owner, time.monotonic() - turn.since - turn.expected_s)

    def _replace(self, worker: Worker, turn: _Turn, *, lost: bool = True) -> None:
        """End a worker; its place is free again once another is warm, or could not be started."""
        self.lost += lost
        self._do(self._succeed(worker, turn))

    async def _succeed(self, worker: Worker, turn: _Turn) -> None:
        try:
            await self._end(worker)
            if not self._closed:
                self._idle.append(await self._started())
        except MediaUnavailableError as error:
            logger.error("%s", error)  # the next job tries again, and says so to its request
        finally:
            self._end_turn(turn)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
