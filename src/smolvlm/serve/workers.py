"""`smolvlm serve --workers N`: N server processes on one address, and this one, which watches them and holds no model.

The supervisor binds the socket; every worker accepts on it, from the moment when its model is warm. The first worker goes
ahead, so that what is wrong with a model or a setting is said once. A worker that dies is replaced: at once if it has served
for a while, else after a pause that doubles. SIGTERM and Ctrl-C are passed on, and every worker drains.

uvicorn has a supervisor of its own (`uvicorn.supervisors.Multiprocess`, read at 0.54). It is not used: it starts a dead worker
again without a pause and a hundred times if need be; it has no limit on the time of an end and is deaf to a second signal;
Ctrl-C reaches its workers twice, from the terminal and from it, and twice means hurry here; workers outlive it when it is
killed; it ends with status 0 whatever happened; and all its workers have one environment, so that each would take all cores.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from smolvlm.engines.native_engine import THREADS_VARIABLE
from smolvlm.errors import ParamsError, SmolVLMError
from smolvlm.listening import listen
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.fair_socket import Loads
from smolvlm.serve.logs import log_as_json
from smolvlm.serve.server import announce
from smolvlm.serve.shared_metrics import FOLDER_VARIABLE, forget_gauges
from smolvlm.serve.worker import LOADS, METRICS, QUOTAS, Setup

logger = logging.getLogger(__name__)

_STEADY_S = 60.0  # a worker that served so long is replaced at once
_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
_FRUITLESS = 6  # starts in a row without a worker being ready, while no other lives: the fault is not the worker's
GRACE_S = 15.0  # beyond drain_s: to close connections, the engine and the decoding processes
_OTHER_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS")  # the torch engine's, NumPy's


def serve_with_workers(model: str, config: ServeConfig) -> int:
    """Serve `model`, by its name, from `config.workers` processes until a signal ends them; the exit status.

    0: all drained; 1: one of them did not, or none can live. Prints the address on stdout once the socket is bound. Raises
    ParamsError for an address that cannot be had, and the first worker's error when it cannot start.
    """
    if sys.platform == "win32":
        raise ParamsError(
            "workers: this system cannot share a socket between processes; start one server for each port."
        )
    log_as_json(config.log_level)
    with tempfile.TemporaryDirectory(prefix="smolvlm-serve-") as made, listen(config.host, config.port) as listening:
        folder = Path(made)
        for name in (METRICS, QUOTAS):
            (folder / name).mkdir()
        Loads.create(folder / LOADS, config.workers)
        shared = dataclasses.replace(config, files_folder=config.files_folder or str(folder / "files"))
        announce(config.served_name or model, listening)
        return asyncio.run(Supervisor(model, shared, listening, folder).run())


@dataclass(eq=False)
class _Worker:
    """One place among the workers and the process that has it."""

    place: int
    threads: str
    process: asyncio.subprocess.Process | None = None
    ready: bool = False


class Supervisor:
    """Keeps `config.workers` processes alive. Belongs to one event loop."""

    def __init__(self, model: str, config: ServeConfig, listening: socket.socket, folder: Path) -> None:
        """`folder` is the one that all workers share."""
        self._config, self._metrics, self._loads = config, folder / METRICS, Loads(folder / LOADS)
        self._setup = Setup(model, dataclasses.asdict(config), listening.fileno(), str(folder), place=0)
        given = os.environ.get(THREADS_VARIABLE)  # who names a number means it for each
        self._workers = [
            _Worker(place, given or str(threads)) for place, threads in enumerate(shares(_cores(), config.workers))
        ]
        self._ending = asyncio.Event()
        self._proven = asyncio.Event()  # one worker has been ready: the settings are good
        self._unclean = False

    async def run(self) -> int:
        """The exit status. Raises SmolVLMError, in the first worker's words, when that one cannot start."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end, number)
        keeping = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        hurrying = asyncio.create_task(self._kill_when_late())
        try:
            await asyncio.gather(*keeping)
        finally:
            self._end()
            await asyncio.gather(*keeping, return_exceptions=True)
            hurrying.cancel()
        return int(self._unclean)

    def _end(self, number: signal.Signals | None = None) -> None:
        """Pass a signal on; workers take the second one for haste."""
        if number is not None:
            logger.info("ending", extra={"facts": {"signal": number.name, "again": self._ending.is_set()}})
        elif self._ending.is_set():
            return
        self._ending.set()
        self._proven.set()
        for worker in self._workers:
            _send(worker.process, signal.SIGTERM)

    async def _kill_when_late(self) -> None:
        await self._ending.wait()
        await asyncio.sleep(self._config.drain_s + GRACE_S)
        for worker in self._workers:
            if worker.process is not None and worker.process.returncode is None:
                logger.error("a worker did not end in time", extra={"facts": {"worker": worker.process.pid}})
                _send(worker.process, signal.SIGKILL)

    async def _keep(self, worker: _Worker) -> None:
        """Start it, and again whenever it dies, until the end."""
        if worker is not self._workers[0]:
            await self._proven.wait()  # set at the end too
        failures = 0
        while not self._ending.is_set():
            started_at = asyncio.get_running_loop().time()
            status, was_ready, reason = await self._live(worker)
            if self._ending.is_set():
                self._unclean |= status != 0 and (was_ready or status != -signal.SIGTERM)
                return
            if not self._proven.is_set():
                if reason is not None:
                    raise SmolVLMError(reason)
                self._give_up(f"the first worker ended with {_spelled(status)} before it was ready")
                return
            lived_s = asyncio.get_running_loop().time() - started_at
            failures = 0 if was_ready and lived_s >= _STEADY_S else failures + 1
            pause_s = min(_LONGEST_PAUSE_S, _PAUSE_S * 2 ** (failures - 1)) if failures else 0.0
            logger.error("a worker died", extra={"facts": {
                "status": _spelled(status), "reason": reason, "lived_s": round(lived_s, 1), "again_in_s": pause_s,
                "ready_workers": sum(other.ready for other in self._workers),
            }})  # fmt: skip
            if failures >= _FRUITLESS and not was_ready and not any(other.ready for other in self._workers):
                self._give_up("no worker lives, and none can be started")
                return
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._ending.wait(), pause_s)

    def _give_up(self, why: str) -> None:
        logger.error(why)
        self._unclean = True
        self._end()

    async def _live(self, worker: _Worker) -> tuple[int, bool, str | None]:
        """One process from start to end: its status, whether it was ready, and the sentence that it left."""
        try:
            process = worker.process = await self._start(worker.place, worker.threads)
        except OSError as error:
            return 1, False, f"no process can be started ({error.strerror})."
        try:
            assert process.stdout is not None, "made with pipes"
            line = await process.stdout.readline()
            said = json.loads(line) if line.endswith(b"\n") else {}
            if "ready" in said:
                worker.ready = True
                self._proven.set()
                logger.info("a worker is ready", extra={"facts": {"worker": process.pid, "threads": worker.threads}})
            status = await process.wait()
            return status, worker.ready, said.get("error")
        finally:
            worker.ready = False
            self._loads.leave(worker.place)
            forget_gauges(self._metrics, process.pid)

    async def _start(self, place: int, threads: str) -> asyncio.subprocess.Process:
        environment = dict.fromkeys(_OTHER_THREADS, threads) | os.environ
        environment |= {
            THREADS_VARIABLE: threads, FOLDER_VARIABLE: str(self._metrics),
            # The package as this process found it.
            "PYTHONPATH": os.pathsep.join(p for p in sys.path if p), "PYTHONSAFEPATH": "1",
        }  # fmt: skip
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "smolvlm.serve.worker", stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
            env=environment, pass_fds=(self._setup.socket,),
            start_new_session=True,  # Ctrl-C comes from here, once
        )  # fmt: skip
        assert process.stdin is not None, "made with pipes"
        # Never closed: its end tells the worker that it is alone.
        process.stdin.write(dataclasses.replace(self._setup, place=place).line())
        if self._ending.is_set():  # the signal came while it was being made
            _send(process, signal.SIGTERM)
        return process


def shares(cores: int, workers: int) -> list[int]:
    """Threads for each worker: the cores dealt out, at least one each."""
    each, over = divmod(cores, workers)
    return [max(1, each + (number < over)) for number in range(workers)]


def _cores() -> int:
    """What this process may use."""
    try:
        from smolvlm.engines._native import usable_threads
    except ImportError:  # installed without the native engine
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return usable_threads()


def _spelled(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"


def _send(process: asyncio.subprocess.Process | None, number: signal.Signals) -> None:
    if process is not None and process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
