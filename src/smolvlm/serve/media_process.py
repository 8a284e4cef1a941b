"""One decoding process as the server holds it: how it is started, asked and ended. What it does is in media_worker.py."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import socket
import sys

from smolvlm.config import ProcessorConfig
from smolvlm.media.sources import Source
from smolvlm.serve.background import give_way
from smolvlm.serve.media_limits import MediaLimits
from smolvlm.serve.media_wire import Job, Reply, header_length, pack, read_reply

_START_S = 30.0  # 0.3 s on an idle machine
_STREAM_BUFFER_BYTES = 1 << 20
COMMAND = (sys.executable, "-m", "smolvlm.serve.media_worker")
# What a decoder needs of the server's environment. Keys and tokens stay behind.
_ENVIRONMENT = (
    "PATH",
    "LANG",
    "LC_ALL",
    "TMPDIR",
    "TEMP",
    "SYSTEMROOT",
    "LD_LIBRARY_PATH",
    "PYTHONHOME",
    "VIRTUAL_ENV",
)


class WorkerDied(Exception):
    """The process is gone; `returncode` as of `Popen`. A signal inside this room."""

    def __init__(self, returncode: int) -> None:
        super().__init__(f"exit status {returncode}")
        self.returncode = returncode


class Worker:
    """One decoding process. `missing` names the limits that its system does not have."""

    def __init__(self, process: asyncio.subprocess.Process, files: socket.socket | None) -> None:
        """`files`: takes open files to the process; None where the system cannot hand them on (Windows)."""
        assert process.stdin is not None, "made with pipes"
        assert process.stdout is not None, "made with pipes"
        self.process = process
        self._jobs, self._replies, self._files = process.stdin, process.stdout, files
        self.missing: list[str] = []
        self.jobs_done = 0

    @classmethod
    async def start(cls, config: ProcessorConfig, limits: MediaLimits) -> Worker:
        """A process that is ready for its first job. Raises OSError or WorkerDied."""
        environment = {k: v for k in _ENVIRONMENT if (v := os.environ.get(k)) is not None}
        environment.update(
            # The package as this process found it.
            PYTHONPATH=os.pathsep.join(p for p in sys.path if p), PYTHONSAFEPATH="1", PYTHONIOENCODING="utf-8",
            PYTHONDONTWRITEBYTECODE="1",  # it may not write files
            OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1",
            MALLOC_ARENA_MAX="2",  # each arena reserves 64 MB of the address space, whether used or not
        )  # fmt: skip
        ours, theirs = socket.socketpair() if hasattr(socket, "send_fds") else (None, None)
        given = () if theirs is None else (theirs.fileno(),)
        try:
            process = await asyncio.create_subprocess_exec(
                *COMMAND, *map(str, given), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, env=environment,
                limit=_STREAM_BUFFER_BYTES, pass_fds=given,
                start_new_session=True,  # Ctrl-C is for the server, which lets requests finish
            )  # fmt: skip
        except BaseException:
            if ours is not None:
                ours.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        worker = cls(process, ours)
        gone_without = give_way(process.pid)
        setup = {
            "config": dataclasses.asdict(config), "limits": dataclasses.asdict(limits.of_one_source()),
            "max_video_s": limits.max_video_s, "memory_mb": limits.worker_mb, "decode_s": limits.decode_s,
        }  # fmt: skip
        try:
            header, _ = await asyncio.wait_for(worker._exchange(pack(setup), b""), _START_S)
            worker.missing = [str(what) for what in json.loads(header)["missing"]] + gone_without
        except BaseException:
            await worker.end()
            raise
        return worker

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def ask(self, job: Job, source: Source, tile_size: int, max_tiles: int) -> tuple[Reply, bytes]:
        """Do one job. Raises WorkerDied, or WireError when the process no longer keeps to the protocol.

        SourceError when the source's file cannot be opened.
        """
        data = source.data
        if data is None and self._files is None:
            data = await asyncio.to_thread(source.head, job.size)
        elif data is None:
            self._pass_on(source)
            job, data = job.model_copy(update={"passed": True}), b""
        header, _ = await self._exchange(pack(job), data)
        reply = read_reply(header, tile_size, max_tiles)
        self.jobs_done += 1
        return reply, await self._read(reply.size)

    def _pass_on(self, source: Source) -> None:
        """Give the process the source's file, open for reading: it opens none itself."""
        assert self._files is not None, "asked for above"
        with source.open() as file, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: seen at once
            socket.send_fds(self._files, [b"f"], [file.fileno()])

    async def _exchange(self, header: bytes, data: bytes) -> tuple[bytes, None]:
        try:
            self._jobs.write(header)
            if data:
                self._jobs.write(data)
            await self._jobs.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._died() from None
        return await self._read(header_length(await self._read(4))), None

    async def _read(self, size: int) -> bytes:
        try:
            return await self._replies.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            raise await self._died() from None

    async def _died(self) -> WorkerDied:
        try:
            return WorkerDied(await asyncio.wait_for(self.process.wait(), 5))
        except asyncio.TimeoutError:  # it closed its pipes and lives on
            await self.end()
            return WorkerDied(1)

    async def end(self) -> None:
        """Kill it, and wait until the system has taken it away."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        self._jobs.close()
        if self._files is not None:
            self._files.close()
