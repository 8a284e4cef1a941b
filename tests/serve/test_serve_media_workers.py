"""The decoding processes: no file and no signal ends the server, and no process outlives it."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PIL import Image

from helpers_media import encoded, make_clip, photo
from helpers_serve_media import LIMITS, PNG, SMALL, Loop, data_url, running_gate
from smolvlm.config import ProcessorConfig
from smolvlm.errors import ImageError, VideoError
from smolvlm.media import SourcePolicy, sample_video, split_image
from smolvlm.media.sandbox.gate import MediaGate, MediaLimits, MediaUnavailableError, StoredFile
from smolvlm.prompt.messages import ImagePart, VideoPart


@pytest.fixture(scope="module")
def gate() -> Iterator[tuple[Loop, MediaGate]]:
    with running_gate(LIMITS) as found:
        yield found


@pytest.fixture(scope="module")
def slow_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clip whose sampled frames take a second or more to decode: one group of pictures, large, the last frame asked for."""
    return make_clip(tmp_path_factory.mktemp("slow") / "x.mp4", 80, size=(1600, 900), options={"g": "999", "preset": "ultrafast"})


def workers() -> list[psutil.Process]:
    found = []
    for child in psutil.Process().children():
        try:
            if any("smolvlm.media.sandbox.worker" in word for word in child.cmdline()):
                found.append(child)
        except psutil.Error:
            pass
    return found


def workers_pids() -> set[int]:
    return {worker.pid for worker in workers()}


def serves(loop: Loop, door: MediaGate) -> None:
    """The gate is as good as new."""
    assert np.array_equal(loop(door.open(ImagePart(PNG))).tiles, split_image(photo(30, 20), door.config).tiles)


def test_a_killed_worker_costs_nothing_but_time(gate: tuple[Loop, MediaGate], slow_clip: Path) -> None:
    """kill -9 in the middle of a job: another worker does it again, and the killed one is replaced."""
    loop, door = gate
    expected = sample_video(slow_clip, SMALL, policy=SourcePolicy())
    lost = door.workers_lost
    running = loop.begin(door.open(VideoPart(StoredFile(slow_clip))))
    _busy_worker().kill()
    assert np.array_equal(running.result(30).tiles, expected.frames)
    assert door.workers_lost == lost + 1
    _wait_for(lambda: len(workers()) == 2)


@pytest.mark.slow
def test_workers_that_are_killed_again_and_again(gate: tuple[Loop, MediaGate], slow_clip: Path) -> None:
    """Killed twice over one job: the request is told that the server is in trouble, and the next one is served."""
    loop, door = gate
    running = loop.begin(door.open(VideoPart(StoredFile(slow_clip))))
    first = _busy_worker()
    first.kill()
    _busy_worker(first.pid).kill()
    with pytest.raises(MediaUnavailableError, match="for no fault of the file"):
        running.result(30)
    serves(loop, door)


@pytest.mark.slow
def test_workers_killed_while_idle(gate: tuple[Loop, MediaGate]) -> None:
    loop, door = gate
    _wait_for(lambda: len(workers()) == 2)
    for worker in workers():
        worker.kill()
    _wait_for(lambda: not workers())
    assert len(loop(door.open_all([ImagePart(PNG)] * 3))) == 3


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS, signal.SIGXCPU])
def test_a_file_that_crashes_the_decoder(gate: tuple[Loop, MediaGate], slow_clip: Path, how: int) -> None:
    """No file is known to do so: the signal that it would raise is sent. It is not tried again."""
    loop, door = gate
    lost = door.workers_lost
    running = loop.begin(door.open(VideoPart(StoredFile(slow_clip, "evil.mp4"))))
    _busy_worker().send_signal(how)
    expected = "evil.mp4: reading it takes more than" if how == signal.SIGXCPU else "evil.mp4: reading it crashes the decoder"
    with pytest.raises(VideoError, match=expected):
        running.result(30)
    assert door.workers_lost == lost + 1
    serves(loop, door)


@pytest.mark.slow
def test_a_worker_that_hangs(slow_clip: Path) -> None:
    with running_gate(MediaLimits(workers=1, stalled_s=1.0)) as (loop, door):
        serves(loop, door)
        running = loop.begin(door.open(VideoPart(StoredFile(slow_clip))))
        _busy_worker().send_signal(signal.SIGSTOP)
        with pytest.raises(MediaUnavailableError, match="not read after 1 s"):
            running.result(30)
        serves(loop, door)


@pytest.mark.slow
def test_processor_time_of_a_medium_is_limited(slow_clip: Path) -> None:
    """A job of several seconds in a process that may have one or two, from its start on; then shorter ones go on as ever."""
    with running_gate(MediaLimits(workers=1, decode_s=0.5), config=ProcessorConfig()) as (loop, door):
        serves(loop, door)
        with pytest.raises(VideoError, match=r"takes more than 0\.5 s of a processor"):
            loop(door.open(VideoPart(StoredFile(slow_clip), {"fps": 25.0})))
        for _ in range(3):
            serves(loop, door)


@pytest.mark.slow
def test_processor_time_is_counted_anew_for_each_medium() -> None:
    """Pictures of some tenths of a second each, until one process that may spend three seconds on each spent four in all."""
    picture = encoded(photo(1200, 1200), "PNG")
    with running_gate(MediaLimits(workers=1, decode_s=3), config=ProcessorConfig()) as (loop, door):
        only = workers_pids()
        spent = [0.0]
        while max(spent) < 4:
            assert len(loop(door.open(ImagePart(picture))).tiles) == 17
            assert workers_pids() == only
            spent.append(max(psutil.Process(pid).cpu_times().user for pid in only))
            assert len(spent) < 200


def test_memory_of_a_worker_is_limited() -> None:
    """A picture within the limit of pixels that does not fit into the limit of memory."""
    large = encoded(Image.new("RGB", (6000, 6000), "teal"), "PNG")
    with running_gate(MediaLimits(workers=1, worker_mb=300)) as (loop, door):
        with pytest.raises(ImageError, match="takes more than the 300 MB"):
            loop(door.open(ImagePart(large)))
        serves(loop, door)
    with running_gate(MediaLimits(workers=1)) as (loop, door):
        assert len(loop(door.open(ImagePart(large))).tiles), "the default has room for it"


def test_what_a_worker_may_do(gate: tuple[Loop, MediaGate], monkeypatch: pytest.MonkeyPatch) -> None:
    """Its limits as the kernel has them, and an environment without anybody's keys."""
    assert gate[1].missing_limits == ()
    monkeypatch.setenv("SMOLVLM_TEST_SECRET", "hunter2")
    with running_gate(MediaLimits(workers=1, worker_mb=777)) as (_, other):
        assert other.missing_limits == ()
        worker = max(workers(), key=lambda p: p.create_time())
        limits = {row[:26].strip(): row[26:].split()[:2] for row in Path(f"/proc/{worker.pid}/limits").read_text().splitlines()}
        assert limits["Max address space"] == [str(777 << 20)] * 2
        assert limits["Max core file size"] == ["0", "0"]
        assert limits["Max file size"] == ["0", "0"]
        assert limits["Max open files"] == ["64", "64"]
        assert "hunter2" not in str(worker.environ())
        assert os.getpgid(worker.pid) == worker.pid, "Ctrl-C at the server's terminal does not reach it"
        modules = Path(f"/proc/{worker.pid}/maps").read_text()
        assert "libtorch" not in modules
        assert "libavcodec" in modules


@pytest.mark.slow
def test_requests_wait_for_a_worker(slow_clip: Path) -> None:
    with running_gate(MediaLimits(workers=1, queue_s=0.2)) as (loop, door):
        first = loop.begin(door.open(VideoPart(StoredFile(slow_clip))))
        _busy_worker().send_signal(signal.SIGSTOP)
        with pytest.raises(MediaUnavailableError, match="busy for 0.2 s"):
            loop(door.open(ImagePart(PNG)))
        for worker in workers():
            worker.send_signal(signal.SIGCONT)
        assert len(first.result(30).tiles)
        serves(loop, door)


@pytest.mark.slow
def test_a_request_that_is_given_up_frees_its_worker(slow_clip: Path) -> None:
    with running_gate(MediaLimits(workers=1)) as (loop, door):
        running = loop.begin(door.open(VideoPart(StoredFile(slow_clip))))
        busy = _busy_worker()
        running.cancel()
        _wait_for(lambda: not busy.is_running() or busy.status() == psutil.STATUS_ZOMBIE)
        serves(loop, door)


@pytest.mark.slow
def test_many_requests_at_once_each_get_their_own(gate: tuple[Loop, MediaGate]) -> None:
    """Pictures of one colour each: nothing is mixed up, also while workers are being killed."""
    loop, door = gate

    async def ask(shade: int) -> int:
        picture = np.full((10, 10, 3), shade, np.uint8)
        got = await door.open(ImagePart(data_url(encoded(Image.fromarray(picture), "PNG"))))
        assert (got.tiles == got.tiles.flat[0]).all()
        return int(got.tiles.flat[0])

    async def all_of_them() -> list[int]:
        asked = [asyncio.ensure_future(ask(shade)) for shade in range(100)]
        await asyncio.sleep(0.05)
        for worker in workers()[:1]:
            worker.kill()
        return list(await asyncio.gather(*asked))

    assert loop(all_of_them()) == list(range(100))


@pytest.mark.slow
def test_close_leaves_no_process(slow_clip: Path) -> None:
    before = {p.pid for p in workers()}
    with running_gate(MediaLimits(workers=2)) as (loop, door):
        running = loop.begin(door.open(VideoPart(StoredFile(slow_clip))))
        _busy_worker()
        mine = {p.pid for p in workers()} - before
        assert len(mine) == 2
        loop(door.close())
        with pytest.raises(MediaUnavailableError, match="shutting down"):
            running.result(10)
    assert not mine & {p.pid for p in workers()}


@pytest.mark.slow
def test_workers_end_with_a_server_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import asyncio, os, sys; from smolvlm.media.sandbox.gate import *; from smolvlm.config import ProcessorConfig\n"
        "async def main():\n"
        "    gate = MediaGate(ProcessorConfig(), MediaLimits(workers=1)); await gate.start()\n"
        "    print(gate._pool._idle[0].process.pid, flush=True); await asyncio.sleep(60)\n"
        "asyncio.run(main())"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ) as server:
        assert server.stdout is not None
        worker = psutil.Process(int(server.stdout.readline()))
        server.kill()
    _wait_for(lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE)


def _busy_worker(not_pid: int = 0) -> psutil.Process:
    """The worker that is decoding, once one is: it holds the clip open and has used the processor since the last look."""
    spent: dict[int, float] = {}
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        for worker in workers():
            try:
                times = worker.cpu_times()
                ready = any(file.path.endswith(".mp4") for file in worker.open_files())
            except (psutil.Error, OSError):
                continue
            used = times.user + times.system
            if ready and worker.pid != not_pid and used > spent.setdefault(worker.pid, used) + 0.02:
                return worker
        time.sleep(0.01)
    raise AssertionError("no worker became busy")


def _wait_for(condition: Any) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
