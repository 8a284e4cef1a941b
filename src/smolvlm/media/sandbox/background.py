"""Processes in the background: they decode media or compile grammars for strangers, and leave the processors to the engine."""

from __future__ import annotations

import contextlib
import os

# A tenth of the weight of an ordinary process. Less would starve a neighbour's small picture while the engine is busy.
_NICE = 10


def give_way(pid: int) -> list[str]:
    """Run process `pid`, a child of this one, at low priority, on one core with all other such children.

    To be called right after its start, so that its imports give way too. Gives the names of what this system does not have.
    """
    missing = []
    try:
        os.setpriority(os.PRIO_PROCESS, pid, max(_NICE, os.getpriority(os.PRIO_PROCESS, pid)))
    except (AttributeError, OSError):  # Windows; or a process that has ended already
        missing.append("priority")
    try:
        os.sched_setscheduler(pid, os.SCHED_BATCH, os.sched_param(0))
    except (AttributeError, OSError):  # macOS has neither this nor the next
        missing.append("batch scheduling")
    if not stay_together(pid):
        missing.append("a core of their own")
    return missing


def stay_together(pid: int) -> bool:
    """Run process `pid` on the one core of all such processes. False where the system does not have that."""
    try:
        cores = sorted(os.sched_getaffinity(0))
        if len(cores) > 1:
            os.sched_setaffinity(pid, {cores[os.getpid() % len(cores)]})  # several servers spread over the machine
    except (AttributeError, OSError):
        return False
    return True


def spread_out(pid: int) -> None:
    """Let process `pid` run on any core, for work that is soon done: beside a bomb it would get half of the one core."""
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(pid, os.sched_getaffinity(0))
