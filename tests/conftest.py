"""What every test shares: the examples' folder, and homes and caches that are never the user's own."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(Path(__file__).parent))  # `oracle` and the helpers beside this file

pytest_plugins = ["helpers_skips"]

settings.register_profile("any_machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any_machine")


def pytest_configure() -> None:
    """Tests in several processes (pytest-xdist) share out the cores: threads that wait for each other must not fight for one."""
    worker = os.environ.get("PYTEST_XDIST_WORKER")
    if worker and hasattr(os, "sched_setaffinity"):
        number, count = int(worker.removeprefix("gw")), int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[number % len(cores) :: count])


@pytest.fixture(scope="session")
def examples() -> Path:
    """Real photos and a real clip, with their licences."""
    return ROOT / "examples" / "media"


@pytest.fixture(autouse=True)
def _ordinary_scheduling() -> Iterator[None]:
    """SVT-AV1, which writes some pictures and clips of the tests, gives its caller real-time priority where it runs as root.

    A browser or a server that is started afterwards would inherit it, and nothing else would get that core.
    """
    yield
    if hasattr(os, "sched_getscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


@pytest.fixture(autouse=True)
def _own_log_handlers() -> Iterator[None]:
    """A test that starts a program in this process leaves the next one no handler that writes to a closed file."""
    loggers = [logging.getLogger(name) for name in ("", "smolvlm")]
    before = [list(logger.handlers) for logger in loggers]
    yield
    for logger, handlers in zip(loggers, before, strict=True):
        logger.handlers[:] = handlers


@pytest.fixture(autouse=True)
def _isolated_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's caches, and none reaches the Hub."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf_home"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint of the official format, small enough for every test. Treat it as read-only."""
    from smolvlm.checkpoint.random import write_random_checkpoint

    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoints") / "tiny", "tiny")
