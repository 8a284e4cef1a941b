"""The same runs on Ray Data: a cluster of two nodes, one of which is killed, and what a second worker brings."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray
from benchmarks.material import checkpoint

from helpers_scale import QUESTION, command, environment, fill, read, run, settings
from smolvlm.checkpoint.identity import fingerprint_of
from smolvlm.hub import resolve
from smolvlm.scale.batch import run_batch
from smolvlm.scale.errors import BatchError
from smolvlm.scale.folder import COLUMNS, RunFolder
from smolvlm.scale.pool import PoolOptions
from smolvlm.scale.settings import ModelSpec

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _workers_find_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, environment()[name])
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one processor each. This process is connected to the first; the second may be killed."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        made.second = made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
    finally:
        ray.shutdown()
        made.shutdown()


def without_times(out: Path) -> list[dict[str, Any]]:
    return [{name: row[name] for name in COLUMNS if name != "seconds"} for row in read(out)]


def power_off(node: Any) -> None:
    """All processes of a node at once, its workers too: no goodbye."""
    roots = [psutil.Process(one.process.pid) for many in node.all_processes.values() for one in many]
    for process in {child for root in roots for child in (root, *root.children(recursive=True))}:
        process.kill()


def test_a_node_is_killed_half_way(cluster: Any, tmp_path: Path) -> None:
    broken = fill(tmp_path / "media", 500)
    assert len(broken) == 25
    wanted = settings([tmp_path / "media"], part_inputs=5)
    out = tmp_path / "out.parquet"
    state: dict[str, Any] = {"killed_at": None}

    def kill(done: int, total: int, errors: int) -> None:
        if done >= total // 2 and state["killed_at"] is None:
            state["killed_at"] = done
            nodes = [node for node in ray.nodes() if node["Alive"]]
            assert len(nodes) == 2
            power_off(cluster.second)

    result = run_batch(wanted, out, pool=PoolOptions(address=cluster.address, workers=2), on_progress=kill)
    rows = read(out)
    assert 250 <= state["killed_at"] < 500
    assert result.inputs == len(rows) == len({row["id"] for row in rows}) == 500
    assert [Path(row["source"]).name for row in rows] == sorted(path.name for path in (tmp_path / "media").iterdir())
    assert [Path(row["source"]).name for row in rows if row["error"]] == broken
    assert all(len(row["error"]) > 20 and "unexpected" not in row["error"] for row in rows if row["error"])
    alone = tmp_path / "alone.parquet"
    run_batch(wanted, alone)
    assert without_times(out) == without_times(alone)
    assert not RunFolder.beside(out).path.exists()


def test_workers_of_one_machine(tmp_path: Path) -> None:
    """By the command line; the driver is killed half-way and the same command goes on."""
    fill(tmp_path / "media", 60)
    out = tmp_path / "out.parquet"
    folder = RunFolder.beside(out)
    args = (
        tmp_path / "media",
        "--out",
        out,
        "--model",
        "nano",
        "-q",
        QUESTION,
        "--max-new-tokens",
        "16",
        "--part-inputs",
        "2",
        "--workers",
        "2",
        "--worker-cpus",
        "1",
    )
    process = subprocess.Popen(command(*args), env=environment(), start_new_session=True, stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while len(list(folder.path.glob("part-*.parquet"))) < 5 and time.monotonic() < until:
        time.sleep(0.01)
    process.kill()
    process.wait(timeout=30)
    assert 5 <= len(folder.done()) < 30
    done = run(*args, timeout_s=240)
    assert done.returncode == 0, done.stderr
    assert "inputs were done before" in done.stderr
    rows = read(out)
    assert len(rows) == len({row["id"] for row in rows}) == 60
    assert sum(row["error"] is not None for row in rows) == 3


@pytest.mark.parametrize("workers", [1, 2])
def test_all_workers_are_killed(tmp_path: Path, workers: int) -> None:
    """As by a system that is out of memory."""
    fill(tmp_path / "media", 60)
    killed: list[psutil.Process] = []

    def kill(done: int, total: int, errors: int) -> None:
        if done >= total // 3 and not killed:
            killed.extend(p for p in psutil.Process().children(recursive=True) if "_Actor" in p.name() or "MapWorker" in p.name())
            for process in killed:
                process.kill()

    wanted = settings([tmp_path / "media"])
    result = run_batch(wanted, tmp_path / "out.parquet", pool=PoolOptions(workers=workers, worker_cpus=1), on_progress=kill)
    assert len(killed) >= workers
    rows = read(tmp_path / "out.parquet")
    assert result.inputs == len(rows) == len({row["id"] for row in rows}) == 60
    assert sum(row["error"] is not None for row in rows) == 3


@pytest.mark.parametrize(("model", "inputs"), [("nano", 600), ("256m", 40)])
def test_two_workers_against_one(tmp_path: Path, model: str, inputs: int) -> None:
    """Prints the figures of docs/scale.md: `pytest tests/scale/test_scale_ray.py -m slow -s -k two_workers`.

    Each worker computes with one thread, so that the second one brings a core along. One tile an input.
    """
    fill(tmp_path / "media", inputs, every_broken=inputs + 1, every_clip=inputs + 1)
    folder = "nano" if model == "nano" else str(checkpoint(model, "bfloat16"))
    (one, _), (two, driver) = (_speed(tmp_path, folder, workers) for workers in (1, 2))
    print(f"\n{model}: one worker {one:.2f} inputs/s, two {two:.2f}: {two / one:.2f} times; the driver took {driver:.2f} of a core")
    assert without_times(tmp_path / "1.parquet") == without_times(tmp_path / "2.parquet")


def _speed(folder: Path, model: str, workers: int) -> tuple[float, float]:
    """Inputs a second, from when every worker has had its first part in place to the last part; processors this process took."""
    times: list[tuple[float, float, int]] = []

    def note(done: int, total: int, errors: int) -> None:
        times.append((time.perf_counter(), time.process_time(), done))

    spec = ModelSpec(model, fingerprint_of(resolve(model)), device="cpu")
    options = {"max_new_tokens": 16, "detail": "low"}
    wanted = replace(settings([folder / "media"], options=options, part_inputs=16 if model == "nano" else 2), model=spec)
    run_batch(wanted, folder / f"{workers}.parquet", pool=PoolOptions(workers=workers, worker_cpus=1), on_progress=note)
    (began, used, before), (ended, used_in_all, done) = times[1 + workers], times[-1]
    return (done - before) / (ended - began), (used_in_all - used) / (ended - began)


def test_a_cluster_that_is_not_there(tmp_path: Path) -> None:
    fill(tmp_path / "media", 2)
    with pytest.raises(BatchError, match=r"Ray at 127\.0\.0\.1:1 cannot be reached"):
        run_batch(settings([tmp_path / "media"]), tmp_path / "out.parquet", pool=PoolOptions(address="127.0.0.1:1"))


def test_workers_of_this_machine_leave_other_clusters_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`--workers` on a machine that belongs to a cluster, which Ray finds by this variable, or by a file of `ray start`."""
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    fill(tmp_path / "media", 2)
    assert run_batch(settings([tmp_path / "media"]), tmp_path / "out.parquet", pool=PoolOptions(workers=1)).inputs == 2


def test_other_weights_on_a_worker_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "media", 2)
    wanted = settings([tmp_path / "media"])
    wanted = replace(wanted, model=replace(wanted.model, fingerprint="0" * 32))
    with pytest.raises(BatchError, match="other weights") as refused:
        run_batch(wanted, tmp_path / "out.parquet", pool=PoolOptions(workers=1))
    assert "Traceback" not in str(refused.value)
