"""One decoding process as the server holds it: how it is started and asked. What it does is in worker.py."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import socket
import sys

from smolvlm.config import ProcessorConfig
from smolvlm.media.sandbox.child_process import START_S, Child, launch
from smolvlm.media.sandbox.limits import MediaLimits
from smolvlm.media.sandbox.wire import Job, Reply, pack, read_reply
from smolvlm.media.sources import Source

COMMAND = (sys.executable, "-m", "smolvlm.media.sandbox.worker")


class Worker(Child):
    """One decoding process."""

    def __init__(self, process: asyncio.subprocess.Process, files: socket.socket | None) -> None:
        """`files`: takes open files to the process; None where the system cannot hand them on (Windows)."""
        super().__init__(process)
        self._files = files

    @classmethod
    async def start(cls, config: ProcessorConfig, limits: MediaLimits) -> Worker:
        """A process that is ready for its first job. Raises OSError or ChildDied."""
        ours, theirs = socket.socketpair() if hasattr(socket, "send_fds") else (None, None)
        given = () if theirs is None else (theirs.fileno(),)
        try:
            process = await launch([*COMMAND, *map(str, given)], given)
        except BaseException:
            if ours is not None:
                ours.close()
            raise
        finally:
            if theirs is not None:
                theirs.close()
        worker = cls(process, ours)
        setup = {
            "config": dataclasses.asdict(config),
            "limits": dataclasses.asdict(limits.source),
            "max_video_s": limits.max_video_s,
            "memory_mb": limits.worker_mb,
            "decode_s": limits.decode_s,
        }
        try:
            header = await asyncio.wait_for(worker.exchange(pack(setup)), START_S)
            worker.missing = [str(what) for what in json.loads(header)["missing"]] + worker.missing
        except BaseException:
            await worker.end()
            raise
        return worker

    async def ask(self, job: Job, source: Source, tile_size: int, max_tiles: int) -> tuple[Reply, bytes]:
        """Do one job. Raises ChildDied, or WireError when the process no longer keeps to the protocol.

        SourceError when the source's file cannot be opened.
        """
        data = source.data
        if data is None and self._files is None:
            data = await asyncio.to_thread(source.head, job.size)
        elif data is None:
            self._pass_on(source)
            job, data = job.model_copy(update={"passed": True}), b""
        reply = read_reply(await self.exchange(pack(job), data), tile_size, max_tiles)
        self.jobs_done += 1
        return reply, await self.read(reply.size)

    def _pass_on(self, source: Source) -> None:
        """Give the process the source's file, open for reading: it opens none itself."""
        assert self._files is not None, "asked for above"
        with source.open() as file, contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it died: seen at once
            socket.send_fds(self._files, [b"f"], [file.fileno()])

    async def end(self) -> None:
        """Kill it, and wait until the system has taken it away."""
        await super().end()
        if self._files is not None:
            self._files.close()
