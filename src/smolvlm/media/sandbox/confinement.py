"""What a process that works for strangers gives up before its first job: memory beyond a limit, files, connections, programs."""

from __future__ import annotations

import importlib
import sys
import sysconfig
from pathlib import Path
from typing import Any

from smolvlm.media.sandbox.landlock import restrict_files
from smolvlm.media.sandbox.seccomp import restrict_calls

_OPEN_FILES = 64
_LIBRARIES = ("/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache")


def confine(memory_mb: int) -> list[str]:
    """Give up what computing does not need; the names of what this system cannot take away.

    Afterwards no file can be opened but Python's own code and the system's libraries, to be read; no connection is made, no
    program started, no other process touched. To be called before any thread is started.
    """
    missing = _limit(memory_mb)
    try:
        filed = restrict_files(code_places())
    except OSError:
        filed = False
    return missing + ([] if filed else ["files (Landlock)"]) + ([] if restrict_calls() else ["system calls (seccomp)"])


def code_places() -> list[str]:
    """Where modules that are imported later may lie: not all of Python's path, which may hold somebody's home."""
    places = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    places |= {place for place in sys.path if Path(place).name in ("site-packages", "dist-packages")}
    for name, module in list(sys.modules.items()):
        if "." not in name:
            places.update(str(place) for place in getattr(module, "__path__", ()))
    return sorted(places | set(_LIBRARIES))


def _limit(memory_mb: int) -> list[str]:
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows
        return ["memory", "processor time", "open files", "file size", "core dumps"]
    missing = []
    for what, name, amount in (
        ("memory", "RLIMIT_AS", memory_mb << 20),
        ("open files", "RLIMIT_NOFILE", _OPEN_FILES),
        ("file size", "RLIMIT_FSIZE", 0),
        ("core dumps", "RLIMIT_CORE", 0),
    ):
        try:
            which = getattr(resource, name)
            hard = resource.getrlimit(which)[1]
            if hard != resource.RLIM_INFINITY:
                amount = min(amount, hard)
            resource.setrlimit(which, (amount, amount))
        except (AttributeError, ValueError, OSError):  # macOS knows RLIMIT_AS and refuses it
            missing.append(what)
    return missing
