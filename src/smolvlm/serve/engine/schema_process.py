"""Schemas of strangers: each is compiled in a process that can be killed, and here only after that one found it cheap.

Two processes, warm, at low priority, replaced when they are lost; owners take turns at them (fair_slots.py). What became of a
schema is remembered, so that one that is used again, or a bomb that comes again, costs nothing.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import signal
import sys
from collections import OrderedDict
from collections.abc import Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from smolvlm.errors import SchemaError
from smolvlm.generation import Grammar, GrammarCompiler
from smolvlm.generation.schema_limits import MAX_SCHEMA_CHARS
from smolvlm.media.sandbox.child_process import START_S, Child, ChildDied, launch
from smolvlm.media.sandbox.fair_slots import FairSlots, LineFullError
from smolvlm.media.sandbox.wire import WireError, pack
from smolvlm.serve.errors import ServeError, busy, unavailable

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-m", "smolvlm.serve.engine.schema_worker")
COMPILE_S = 1.2  # of a processor, for one schema
MEMORY_MB = 300  # beside what the process has for itself
_STALLED_S = 5.0  # on the clock: more than COMPILE_S on a busy machine, at low priority
_QUEUE_S = 20.0
_OWNER_WAITING = 32
_PROCESSES = 2
_JOBS_A_PROCESS = 200
_REMEMBERED, _REMEMBERED_CHARS = 256, 16 << 20
_MOST_TOKENS, _MOST_BYTES = 8_192, 8 << 20  # of a reply
_EXPECTED_S = 0.05
_FROM_OUTSIDE = {-signal.SIGTERM, -signal.SIGINT, -9}


class _Reply(BaseModel):
    """A process's word on a schema: `size` bytes of the bounded schema follow, and `plan` answers it; or an error."""

    model_config = ConfigDict(strict=True, extra="forbid")

    plan: list[int] = Field(default_factory=list, max_length=_MOST_TOKENS)
    size: int = Field(default=0, ge=0, le=_MOST_BYTES)
    error: str | None = Field(default=None, max_length=1000)
    detail: str = Field(default="", max_length=100)  # for the log: an error that nobody foresaw
    out_of_memory: Literal[True] | None = None


class _Verdict(BaseModel):
    """What became of a schema: its bounded text with an answer to it, or the error."""

    text: str = ""
    plan: list[int] = []
    error: str | None = None


class SchemaProcesses:
    """Compiles schemas for requests. Belongs to one event loop."""

    def __init__(self, tokenizer_json: str, vocab_size: int, eos_ids: Sequence[int]) -> None:
        self._tokenizer = tokenizer_json.encode("utf-8")
        self._vocab_size, self._eos_ids = vocab_size, list(eos_ids)
        self._compiler = GrammarCompiler(tokenizer_json, vocab_size, eos_ids)
        # One thread of its own: the pool that other parts of a request share is never kept from them by a schema.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="smolvlm-grammar")
        self._slots = FairSlots(_PROCESSES, _OWNER_WAITING)
        self._idle: list[Child] = []
        self._living: set[Child] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._verdicts: OrderedDict[bytes, _Verdict] = OrderedDict()
        self._verdict_chars = 0
        self._closed = False
        self.lost = 0  # processes that died or were killed over a schema

    async def start(self) -> None:
        """Start the processes, and build the tables of this one. Raises ServeError 503 when one cannot be started."""
        self._idle = list(await asyncio.gather(*(self._started() for _ in range(_PROCESSES))))
        if self._idle[0].missing:
            logger.warning(
                "this system does not limit %s of the processes that compile schemas; the time that each may take is limited all the same",
                ", ".join(self._idle[0].missing),
            )
        await self._here(self._compiler.json_object)

    async def close(self) -> None:
        """End the processes, busy ones too."""
        self._closed = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._idle.clear()
        await asyncio.gather(*(self._end(child) for child in list(self._living)))
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def grammars(self, schema: dict[str, Any], count: int, owner: str) -> tuple[Grammar, ...]:
        """`count` grammars for the documents of `schema`; {}: for any JSON object.

        Raises SchemaError, or ServeError: 429 when the owner has too many schemas waiting, 503 when the server is too busy.
        """
        if not schema:
            return tuple([await self._here(self._compiler.json_object) for _ in range(count)])
        try:
            data = json.dumps(schema).encode("ascii")
        except RecursionError:
            raise SchemaError("The schema is nested too deep; put its inner parts side by side into $defs at its top.") from None
        if len(data) > MAX_SCHEMA_CHARS:
            raise SchemaError(f"The schema has {len(data)} characters; expected at most {MAX_SCHEMA_CHARS}.")
        verdict = await self._verdict(data, owner)
        if verdict.error is not None:
            raise SchemaError(verdict.error)
        return tuple([await self._here(self._compiler.vetted, verdict.text, verdict.plan) for _ in range(count)])

    async def _here(self, work: Any, *arguments: Any) -> Grammar:
        made: Grammar = await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        return made

    async def _verdict(self, data: bytes, owner: str) -> _Verdict:
        key = hashlib.sha256(data).digest()
        if key in self._verdicts:
            self._verdicts.move_to_end(key)
            return self._verdicts[key]
        verdict = await self._ask(data, owner)
        if key not in self._verdicts:
            self._verdicts[key] = verdict
            self._verdict_chars += len(verdict.text)
        while len(self._verdicts) > _REMEMBERED or self._verdict_chars > _REMEMBERED_CHARS:
            self._verdict_chars -= len(self._verdicts.popitem(last=False)[1].text)
        return verdict

    async def _ask(self, data: bytes, owner: str) -> _Verdict:
        """The word of a process; a schema that ends it is refused, one that met a process's end from outside tried again."""
        for _ in range(2):
            child, began = await self._take(owner)
            try:
                verdict = await asyncio.wait_for(self._exchange(child, data), _STALLED_S)
            except asyncio.TimeoutError:  # it did not use up its processor time: a busy machine is no fault of the schema
                self._replace(child, owner, began)
                raise unavailable(
                    f"the schema was not compiled after {_STALLED_S:g} s; the server is too busy; try again later, or send a smaller one.",
                    "schema_unavailable",
                ) from None
            except ChildDied as died:
                self._replace(child, owner, began)
                logger.warning("a process that compiles schemas was lost: %s", died)
                if died.returncode in _FROM_OUTSIDE:
                    continue
                if died.returncode == -getattr(signal, "SIGPROF", 0):
                    return _refused(f"compiling it takes more than {COMPILE_S:g} s of a processor")
                return _refused(f"compiling it takes more than {MEMORY_MB} MB, or crashes the compiler")
            except (WireError, ValidationError) as error:
                self._replace(child, owner, began)
                logger.error("a process that compiles schemas broke the protocol: %s", error)
                return _refused("it crashes the compiler")
            except BaseException:  # the request was given up
                self._replace(child, owner, began)
                raise
            child.jobs_done += 1
            if verdict is None or child.jobs_done >= _JOBS_A_PROCESS:
                self._replace(child, owner, began, lost=verdict is None)
            else:
                self._idle.append(child)
                self._give_back(owner, began)
            return verdict or _refused(f"compiling it takes more than {MEMORY_MB} MB")
        raise unavailable(
            "two processes were lost while they compiled the schema, for no fault of its own; try again later.", "schema_unavailable"
        )

    async def _exchange(self, child: Child, data: bytes) -> _Verdict | None:
        """None: the process ran out of memory."""
        reply = _Reply.model_validate_json(await child.exchange(pack({"size": len(data)}), data))
        if reply.detail:
            logger.error("a schema met an error that nobody foresaw: %s", reply.detail)
        if reply.out_of_memory:
            return None
        text = (await child.read(reply.size)).decode("utf-8", "replace")
        return _Verdict(text=text, plan=reply.plan, error=reply.error)

    async def _take(self, owner: str) -> tuple[Child, float]:
        if self._closed:
            raise unavailable("the server is shutting down; ask another one, or again later.", "shutting_down")
        try:
            await self._slots.take(owner, _EXPECTED_S, _QUEUE_S)
        except LineFullError:
            raise busy(f"{_OWNER_WAITING} schemas of yours wait to be compiled; send fewer at a time.", COMPILE_S) from None
        except TimeoutError:
            raise unavailable(
                f"no process was free to compile the schema for {_QUEUE_S:g} s; try again later.", "schema_unavailable"
            ) from None
        began = asyncio.get_running_loop().time()
        try:
            while self._idle:
                child = self._idle.pop()
                if child.alive:
                    return child, began
                self._do(self._end(child))  # killed while it slept
            return await self._started(), began
        except BaseException:
            self._give_back(owner, began)
            raise

    async def _started(self) -> Child:
        child: Child | None = None
        try:
            child = Child(await launch(COMMAND))
            self._living.add(child)
            setup = {
                "size": len(self._tokenizer),
                "vocab_size": self._vocab_size,
                "eos_ids": self._eos_ids,
                "memory_mb": MEMORY_MB,
                "compile_s": COMPILE_S,
            }
            header = await asyncio.wait_for(child.exchange(pack(setup), self._tokenizer), START_S)
            child.missing = [str(what) for what in json.loads(header)["missing"]] + child.missing
        except (OSError, ChildDied, WireError, ValueError, KeyError, asyncio.TimeoutError) as error:
            if child is not None:
                await self._end(child)
            raise unavailable(
                f"no process can be started to compile the schema ({type(error).__name__}); try again later.", "schema_unavailable"
            ) from None
        except BaseException:
            if child is not None:
                await self._end(child)
            raise
        return child

    async def _end(self, child: Child) -> None:
        await child.end()
        self._living.discard(child)

    def _give_back(self, owner: str, began: float) -> None:
        self._slots.give_back(owner, asyncio.get_running_loop().time() - began - _EXPECTED_S)

    def _replace(self, child: Child, owner: str, began: float, *, lost: bool = True) -> None:
        """End a process; its place is free again once another is warm, or could not be started."""
        self.lost += lost
        self._do(self._succeed(child, owner, began))

    async def _succeed(self, child: Child, owner: str, began: float) -> None:
        try:
            await self._end(child)
            if not self._closed:
                self._idle.append(await self._started())
        except ServeError as error:
            logger.error("%s", error)  # the next schema tries again, and says so to its request
        finally:
            self._give_back(owner, began)

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _refused(why: str) -> _Verdict:
    return _Verdict(error=f"The schema is too complex: {why}; simplify its patterns, or shorten it.")
