"""Shares of the event loop: an owner that keeps it busy waits while others are active, and only then."""

from __future__ import annotations

import asyncio
import time

import pytest

from smolvlm.serve.api.loop_share import LoopShare, Measured


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_who_is_alone_never_waits() -> None:
    share = LoopShare(Clock())
    share.request("a")
    for _ in range(1000):
        share.spent("a", 1.0)
    assert share.delay_s("a") == 0


def test_two_owners_get_a_quarter_of_the_loop_each() -> None:
    clock = Clock()
    share = LoopShare(clock)
    share.request("a")
    used = {"b": 0.0}
    end = clock.now + 40
    while clock.now < end:
        share.request("a")  # stays active, and costs a thousandth
        if not share.delay_s("b"):
            share.request("b")
            share.spent("b", 0.009)
            used["b"] += 0.010
        clock.now += 0.010
    assert used["b"] / 40 == pytest.approx(0.25, rel=0.05)
    assert share.delay_s("a") == 0


def test_a_debt_is_bounded_and_forgotten() -> None:
    clock = Clock()
    share = LoopShare(clock)
    share.request("quiet")
    share.request("busy")
    share.spent("busy", 1e6)
    assert 0.5 < share.delay_s("busy") <= 1.0  # not for the million seconds
    clock.now += 1.9
    share.request("quiet")
    assert share.delay_s("busy") == 0
    share.spent("busy", 1e6)
    clock.now += 2.1  # the other one has gone
    share.request("busy")
    assert share.delay_s("busy") == 0


def test_many_owners_are_no_memory() -> None:
    share = LoopShare(Clock())
    began = time.thread_time()
    for i in range(30_000):
        share.request(str(i))
    assert len(share._owners) <= 10_000
    assert (time.thread_time() - began) / 30_000 < 0.001  # counting them all took 4 ms a request
    share.request("0")
    share.spent("0", 1e6)
    assert 1 < share.delay_s("0") < 20


def test_measured_steps() -> None:
    """Its own steps count, what it waits for does not; results, errors and cancelling pass through."""
    spent: list[float] = []

    async def work() -> str:
        end = time.thread_time() + 0.03
        while time.thread_time() < end:
            pass
        await asyncio.sleep(0.2)
        try:
            await asyncio.wait_for(asyncio.sleep(60), 0.01)
        except asyncio.TimeoutError:
            return "done"
        return "not reached"

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("as it should")

    async def main() -> None:
        assert await Measured(work(), spent.append) == "done"
        assert 0.03 <= sum(spent) < 0.1
        with pytest.raises(ValueError, match="as it should"):
            await Measured(fails(), spent.append)

        ended = []

        async def sleeps() -> None:
            try:
                await asyncio.sleep(60)
            finally:
                ended.append(True)

        async def measured() -> None:
            await Measured(sleeps(), spent.append)

        task = asyncio.create_task(measured())
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert ended

    asyncio.run(main())
