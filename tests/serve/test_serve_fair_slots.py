"""Turns at the decoding processes: the queue itself, by hand-worked orders, and what the system says of the processes."""

from __future__ import annotations

import asyncio
import os
import struct
import sys
from typing import Any

import psutil
import pytest
from PIL import Image

from helpers_media import encoded
from helpers_serve_media import LIMITS, PNG, running_gate
from smolvlm.errors import MediaBusyError
from smolvlm.media.sandbox.cost import declared_size, expected_seconds
from smolvlm.media.sandbox.fair_slots import FairSlots, LineFullError
from smolvlm.media.sandbox.gate import MediaGate, MediaLimits
from smolvlm.prompt.messages import ImagePart
from smolvlm.serve.errors import as_serve_error


async def order_of(slots: FairSlots, jobs: list[tuple[str, float]], actual: dict[str, float] | None = None) -> list[str]:
    """Who is served in which order when all jobs ask at once and each place is held for a moment."""
    served: list[str] = []

    async def job(owner: str, cost: float) -> None:
        await slots.take(owner, cost, 60)
        served.append(owner)
        await asyncio.sleep(0)
        slots.give_back(owner, (actual or {}).get(owner, cost) - cost)

    await asyncio.gather(*(job(*each) for each in jobs))
    return served


def test_owners_take_turns_by_what_their_jobs_cost() -> None:
    """A's jobs cost 4, B's 1: after one of A's, four of B's are due."""
    jobs = [("a", 4.0)] * 3 + [("b", 1.0)] * 8
    assert "".join(asyncio.run(order_of(FairSlots(1, 99), jobs))) == "abbbbabbbba"


def test_a_header_that_lies_is_found_out() -> None:
    """Both promise 1; A's take 4. The queue goes by what was used."""
    jobs = [("a", 1.0)] * 3 + [("b", 1.0)] * 8
    order = "".join(asyncio.run(order_of(FairSlots(1, 99), jobs, actual={"a": 4.0, "b": 1.0})))
    assert order.startswith("abbbb"), order


def test_one_place_is_kept_for_the_others() -> None:
    async def trial() -> None:
        slots = FairSlots(3, 99)
        await slots.take("a", 1, 1)
        await slots.take("a", 1, 1)
        with pytest.raises(TimeoutError):
            await slots.take("a", 1, 0.01)
        await slots.take("b", 1, 0.01)
        slots.give_back("b", 0)
        slots.give_back("a", 0)
        await slots.take("a", 1, 0.01)

    asyncio.run(trial())


def test_a_late_owner_is_level_with_the_others() -> None:
    """B comes after ten jobs of A: it is next, but has no ten in hand."""

    async def trial() -> str:
        slots = FairSlots(1, 99)
        await order_of(slots, [("a", 1.0)] * 10)
        return "".join(await order_of(slots, [("a", 1.0)] * 4 + [("b", 1.0)] * 4))

    assert asyncio.run(trial()) in ("abababab", "babababa")


def test_places_survive_those_who_give_up() -> None:
    """Cancelled while it waits, or in the moment that it is served: the place is there for the next one."""

    async def trial() -> None:
        slots = FairSlots(1, 99)
        await slots.take("a", 1, 1)
        waiting = [asyncio.ensure_future(slots.take(owner, 1, 60)) for owner in "bcd"]
        await asyncio.sleep(0)
        waiting[0].cancel()
        await asyncio.sleep(0)
        slots.give_back("a", 0)  # c is served, and given up in the same step
        waiting[1].cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert [task.cancelled() for task in waiting] == [True, True, False]
        slots.give_back("d", 0)
        await slots.take("e", 1, 0.01)
        slots.give_back("e", 0)
        assert not slots._owners or all(owner.finish > slots._now for owner in slots._owners.values()), "nothing piles up"

    asyncio.run(trial())


def test_a_line_is_bounded_for_each_owner() -> None:
    async def trial() -> None:
        slots = FairSlots(1, 2)
        await slots.take("a", 1, 1)
        waiting = [asyncio.ensure_future(slots.take("a", 1, 60)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LineFullError):
            await slots.take("a", 1, 1)
        other = asyncio.ensure_future(slots.take("b", 1, 60))
        await asyncio.sleep(0)
        assert not other.done()
        for task in (*waiting, other):
            task.cancel()
        await asyncio.gather(*waiting, other, return_exceptions=True)

    asyncio.run(trial())


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("GIF", {}), ("BMP", {}), ("WEBP", {"lossless": True}), ("WEBP", {}), ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0"})],
)
def test_sizes_are_read_from_the_first_bytes(kind: str, options: dict[str, Any]) -> None:
    picture = Image.effect_noise((301, 203), 90).convert("RGB")
    head = encoded(picture, kind, **options)[:64]
    assert declared_size(head, "WebP" if kind == "WEBP" else kind) == (301, 203)


def test_a_bomb_weighs_what_its_header_says() -> None:
    bomb = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + struct.pack(">IIBBBBB", 7000, 7000, 8, 2, 0, 0, 0)
    assert expected_seconds(bomb, 150_000) > 2
    assert expected_seconds(PNG, len(PNG)) < 0.01
    assert expected_seconds(b"\0\0\0\x18ftypmp42" + bytes(50), 40_000_000) > 2
    assert expected_seconds(b"", 0) == 0


def test_an_owner_with_too_many_media_is_told_so() -> None:
    """429 for it alone; others are served."""

    async def flood(gate: MediaGate) -> list[Any]:
        return list(await asyncio.gather(*(gate.open(ImagePart(PNG), owner="a") for _ in range(8)), return_exceptions=True))

    with running_gate(MediaLimits(owner_waiting=2)) as (loop, gate):
        got = loop(flood(gate))
        refused = [each for each in got if isinstance(each, Exception)]
        assert len(refused) == 5, "one is decoded and two wait"
        assert all(isinstance(each, MediaBusyError) for each in refused)
        assert as_serve_error(refused[0]).status == 429
        assert loop(gate.open(ImagePart(PNG), owner="b")).info.tile_count


@pytest.mark.skipif(sys.platform != "linux", reason="what give_way does is of Linux; elsewhere the log names what is missing")
def test_decoding_processes_give_way() -> None:
    with running_gate(LIMITS):
        found = [c for c in psutil.Process().children() if any("smolvlm.media.sandbox.worker" in word for word in c.cmdline())]
        assert len(found) == LIMITS.workers
        for worker in found:
            assert worker.nice() >= 10
            assert os.sched_getscheduler(worker.pid) == os.SCHED_BATCH
        cores = {tuple(worker.cpu_affinity()) for worker in found}
        assert len(cores) == 1, "together"
        if len(os.sched_getaffinity(0)) > 1:
            assert len(cores.pop()) == 1, "on one core"
