"""Skipped tests are said: what was left out, why, and how to get it. In CI a skip without a reason written here is a failure."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

NO_SKIPS_VARIABLE = "SMOLVLM_NO_SKIPS"  # set by .ci/run

# A pattern of the skip's own words -> why CI may leave the test out. What a package can bring is not on this list:
# `.ci/run` installs it.
ALLOWED = {
    r"root may write anywhere": "CI runs as root, whom no folder refuses",
    r"needs a machine without CUDA": "the test is about machines without a GPU",
    r"this file system takes UTF-8 names only": "names in other encodings cannot be made there",
}


def reason_of(report: pytest.TestReport) -> str:
    """The words of a skip, without pytest's "Skipped: "."""
    words = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr or "no reason")
    return " ".join(str(words).removeprefix("Skipped: ").split())


def not_allowed(reasons: Sequence[str]) -> list[str]:
    """Those that no pattern of ALLOWED matches."""
    return [reason for reason in reasons if not any(re.search(pattern, reason) for pattern in ALLOWED)]


def _skipped(config: pytest.Config) -> list[str]:
    terminal: Any = config.pluginmanager.get_plugin("terminalreporter")
    return [reason_of(report) for report in terminal.stats.get("skipped", [])] if terminal else []


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """One line a reason, with the number of tests that it left out."""
    counts = Counter(_skipped(config))
    if not counts:
        return
    terminalreporter.section("left out", sep="-")
    for reason, count in counts.most_common():
        terminalreporter.line(f"{count} test{'s' if count > 1 else ''}: {reason}")
    terminalreporter.line("On Debian and Ubuntu, as root: tests/install_system_packages installs what these need.")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run in CI when a skip's reason is not on the list."""
    if not os.environ.get(NO_SKIPS_VARIABLE) or hasattr(session.config, "workerinput"):
        return
    if left := not_allowed(_skipped(session.config)):
        terminal: Any = session.config.pluginmanager.get_plugin("terminalreporter")
        terminal.line("")
        terminal.line(f"{len(left)} skipped without a reason that tests/helpers_skips.py allows in CI: {sorted(set(left))}", red=True)
        if exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
