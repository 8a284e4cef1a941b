"""A process that works for strangers, as the server holds it: started with next to nothing, asked over pipes, killed at will."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence

from smolvlm.media.sandbox.background import give_way, spread_out, stay_together
from smolvlm.media.sandbox.wire import header_length

START_S = 30.0  # until it is ready; 0.3 s on an idle machine
_STREAM_BUFFER_BYTES = 1 << 20
# What it needs of the server's environment. Keys and tokens stay behind.
_ENVIRONMENT = ("PATH", "LANG", "LC_ALL", "TMPDIR", "TEMP", "SYSTEMROOT", "LD_LIBRARY_PATH", "PYTHONHOME", "VIRTUAL_ENV")


class ChildDied(Exception):
    """The process is gone; `returncode` as of `Popen`. A signal inside this package."""

    def __init__(self, returncode: int) -> None:
        super().__init__(f"exit status {returncode}")
        self.returncode = returncode


class Child:
    """One process in the background. `missing` names the limits that its system does not have."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdin is not None, "made with pipes"
        assert process.stdout is not None, "made with pipes"
        self.process = process
        self._jobs, self._replies = process.stdin, process.stdout
        self.missing: list[str] = give_way(process.pid)
        self.jobs_done = 0

    @property
    def alive(self) -> bool:
        return self.process.returncode is None

    async def exchange(self, header: bytes, data: bytes = b"") -> bytes:
        """Send a message and read the header of the reply. Raises ChildDied, or WireError for a header without end."""
        try:
            self._jobs.write(header)
            if data:
                self._jobs.write(data)
            await self._jobs.drain()
        except (BrokenPipeError, ConnectionResetError):
            raise await self._died() from None
        return await self.read(header_length(await self.read(4)))

    async def read(self, size: int) -> bytes:
        """The next `size` bytes of a reply. Raises ChildDied."""
        try:
            return await self._replies.readexactly(size)
        except (asyncio.IncompleteReadError, ConnectionResetError):
            raise await self._died() from None

    @contextlib.contextmanager
    def soon_done(self, limit_s: float) -> Iterator[None]:
        """Work that should take a moment: on any core, for up to `limit_s`."""
        spread_out(self.process.pid)
        back = asyncio.get_running_loop().call_later(limit_s, stay_together, self.process.pid)
        try:
            yield
        finally:
            back.cancel()
            if self.alive:
                stay_together(self.process.pid)

    async def _died(self) -> ChildDied:
        try:
            return ChildDied(await asyncio.wait_for(self.process.wait(), 5))
        except asyncio.TimeoutError:  # it closed its pipes and lives on
            await self.end()
            return ChildDied(1)

    async def end(self) -> None:
        """Kill it, and wait until the system has taken it away."""
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()
        self._jobs.close()


async def launch(command: Sequence[str], pass_fds: Sequence[int] = ()) -> asyncio.subprocess.Process:
    """Start `command` with pipes. Raises OSError."""
    environment = {k: v for k in _ENVIRONMENT if (v := os.environ.get(k)) is not None}
    environment.update(
        # The package as this process found it.
        PYTHONPATH=os.pathsep.join(p for p in sys.path if p),
        PYTHONSAFEPATH="1",
        PYTHONIOENCODING="utf-8",
        PYTHONDONTWRITEBYTECODE="1",  # it may not write files
        OMP_NUM_THREADS="1",
        OPENBLAS_NUM_THREADS="1",
        MALLOC_ARENA_MAX="2",  # each arena reserves 64 MB of the address space, whether used or not
    )
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env=environment,
        limit=_STREAM_BUFFER_BYTES,
        pass_fds=pass_fds,
        start_new_session=True,  # Ctrl-C is for the server, which lets requests finish
    )
