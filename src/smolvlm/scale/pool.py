"""The parts of a run on Ray Data: a pool of actors, each with the model loaded once.

Only numbers of parts travel through Ray: workers read the inputs and write the parts themselves, on storage that all of
them see. So a node may die at any time, and a part that two workers did is still one file.
"""

from __future__ import annotations

import logging
import os
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.engines.native_engine import THREADS_VARIABLE
from smolvlm.errors import MissingExtraError, SmolVLMError
from smolvlm.media.labels import one_line
from smolvlm.options.declare import check, option
from smolvlm.scale.errors import BatchError
from smolvlm.scale.folder import RunFolder
from smolvlm.scale.worker import PartReport, PartWorker

logger = logging.getLogger(__name__)

_MAX_FRUITLESS_ROUNDS = 6  # it takes Ray up to half a minute to notice that a node is gone
_PAUSE_S = 5.0
_MIN_BLOCKS = 1000


@dataclass(frozen=True)
class PoolOptions:
    """How a run is spread. Raises ParamsError for numbers that make no sense.

    address: of a running cluster ("auto" for the one that this machine belongs to); None starts one on this machine.
    workers: models at work at the same time; None: as many as the cluster's processors (or GPUs) allow. worker_cpus: of
    each worker, and how many threads it computes with; None: the machine's processors shared out, 1 on a cluster.
    worker_gpus: share of a GPU that each worker takes.
    """

    address: str | None = None
    workers: int | None = option(None, "Models at work at the same time.", least=1)
    worker_cpus: int | None = option(None, "Processors of each.", least=1)
    worker_gpus: float = option(0.0, "Share of a GPU of each.", least=0, most=64, hint="such as 0.5")

    def __post_init__(self) -> None:
        check(self)


class _Actor:
    """A `PartWorker` as Ray Data calls it. Errors of ours travel as rows: Ray would bring them as text in a traceback."""

    def __init__(self, folder: str, threads: int) -> None:
        os.environ[THREADS_VARIABLE] = str(threads)  # before the engine is made: workers of one machine share it
        self._worker: PartWorker | SmolVLMError
        try:
            self._worker = PartWorker(RunFolder(Path(folder)))
        except SmolVLMError as error:
            self._worker = error

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        part, problem = int(row["part"]), ""
        report = PartReport(part, 0, 0, 0.0, fresh=False)
        try:
            if isinstance(self._worker, SmolVLMError):
                raise self._worker
            report = self._worker.do(part)
        except SmolVLMError as error:
            problem = str(error)
        return {**report.to_dict(), "problem": problem}


def do_on_ray(folder: RunFolder, todo: Sequence[int], options: PoolOptions) -> Iterator[PartReport]:
    """Yields a report for each part of `todo`, as they are done, in any order.

    What a dead node had in its hands is handed out again, to whom is left. Raises BatchError when rounds end without a
    single new part, MissingExtraError without Ray.
    """
    ray = _ray()
    with _Cluster(ray, options) as cluster:
        left, fruitless = set(todo), 0
        while left:
            before = len(left)
            problem: BaseException | None = None
            try:
                for report in _round(ray, folder, sorted(left), cluster):
                    if report.part in left:
                        left.remove(report.part)
                        yield report
            except SmolVLMError:  # a full disk, a missing model: nothing that another round would mend
                raise
            except Exception as error:  # Ray's own, and what nobody foresaw in an actor
                problem = error
            for part in sorted(left & folder.done()):  # done, but the word of it died with its node
                left.remove(part)
                yield PartReport(part, 0, 0, 0.0, fresh=False)
            fruitless = fruitless + 1 if len(left) == before else 0
            if left and fruitless >= _MAX_FRUITLESS_ROUNDS:
                raise BatchError(
                    f"the workers on Ray finish nothing ({_reason(problem)}); {len(left)} parts are left, what "
                    "is done is kept: run the same command again."
                )
            if left:
                logger.warning("%d parts are handed out again (%s)", len(left), _reason(problem))
                time.sleep(_PAUSE_S * fruitless)


def _round(ray: Any, folder: RunFolder, parts: Sequence[int], cluster: _Cluster) -> Iterator[PartReport]:
    """All of `parts` once through Ray Data; those of dead workers do not come back."""
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.max_errored_blocks = -1  # a dead worker's parts are left to the next round
    workers = min(cluster.workers(), len(parts))
    # As many blocks as parts, so that a part is what is handed out; for very many, a few parts a block.
    blocks = min(len(parts), max(_MIN_BLOCKS, 20 * workers))
    numbers = ray.data.from_items([{"part": part} for part in parts], override_num_blocks=blocks)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what Ray 2.64 will take away: pyproject.toml ends before it
        reports = numbers.map(
            _Actor,
            fn_constructor_kwargs={"folder": str(folder.path), "threads": cluster.worker_cpus},
            compute=ray.data.ActorPoolStrategy(size=workers, max_tasks_in_flight_per_actor=2),
            num_cpus=cluster.worker_cpus,
            num_gpus=cluster.worker_gpus or None,
            # Dead workers come back where there is room: Ray Data waits for ever when none is left. Their parts fail at once, and
            # do not wait for them: the room may have gone with a node.
            ray_remote_args_fn=lambda: {"max_restarts": -1, "max_task_retries": 0},
        )
    for row in reports.iter_rows():
        if row["problem"]:
            raise BatchError(row["problem"])
        yield PartReport(int(row["part"]), int(row["rows"]), int(row["errors"]), float(row["seconds"]), bool(row["fresh"]))


class _Cluster:
    """Ray, connected: started on this machine and ended with the block, or one that was running and stays."""

    def __init__(self, ray: Any, options: PoolOptions) -> None:
        self._ray, self._options = ray, options
        self._ours = not ray.is_initialized()
        self.worker_gpus = options.worker_gpus
        self.worker_cpus = 1

    def __enter__(self) -> _Cluster:
        options, ray = self._options, self._ray
        cores = _cores()
        if self._ours:
            os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is sent anywhere
            quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "include_dashboard": False}
            try:
                if options.address is None:
                    needed = (options.workers or 1) * (options.worker_cpus or 1)
                    # "local": without it Ray would join whatever cluster this machine belongs to, and refuse num_cpus.
                    ray.init(address="local", num_cpus=max(cores, needed), **quiet)
                else:
                    _knock(options.address)
                    quiet.pop("include_dashboard")
                    ray.init(address=options.address, **quiet)
            except Exception as error:  # ConnectionError, ValueError, RuntimeError: by what is wrong with the address
                where = "here" if options.address is None else f"at {options.address}"
                raise BatchError(
                    f"Ray {where} cannot be reached or started ({one_line(error)}); check the address, or leave --ray and --workers out."
                ) from None
        logging.getLogger("ray.data").setLevel(logging.CRITICAL)  # what went wrong is said by us
        if options.worker_cpus is not None:
            self.worker_cpus = options.worker_cpus
        elif options.address is None:
            self.worker_cpus = max(1, cores // (options.workers or 1))
        self.workers()
        return self

    def workers(self) -> int:
        """How many there can be now, nodes that died left out. Raises BatchError for none."""
        resources = self._ray.cluster_resources()
        cpus, gpus = resources.get("CPU", 0.0), resources.get("GPU", 0.0)
        possible = int(cpus // self.worker_cpus)
        if self.worker_gpus:
            possible = min(possible, int(gpus / self.worker_gpus))
        if possible < 1:
            raise BatchError(
                f"no worker of {self.worker_cpus} processors and {self.worker_gpus:g} GPUs fits into the cluster, "
                f"which has {cpus:g} and {gpus:g}."
            )
        return min(self._options.workers or possible, possible)

    def __exit__(self, *_: object) -> None:
        if self._ours:
            self._ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError when nobody listens at host:port. Ray itself would go on trying for many minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ray() -> Any:
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("smolvlm batch --workers and --ray", "scale") from None
    return ray


def _reason(problem: BaseException | None) -> str:
    """For a sentence; without the traceback that Ray writes into its messages."""
    if problem is None:
        return "workers or their nodes died"
    lines = [line for line in str(problem).splitlines() if line.strip()]
    return one_line(RuntimeError(lines[-1])) if lines else type(problem).__name__
