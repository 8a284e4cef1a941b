"""Landlock, by Linux's own system calls: from now on this process opens the files it names here, to read them, and no others.

The kernel offers it from 5.13 on, and what it can forbid grew with its ABI: connections over TCP with 4, signals to other
processes and abstract sockets with 6. Whoever uses it needs no privilege, and can never undo it.
Source: https://docs.kernel.org/userspace-api/landlock.html
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import sys
from collections.abc import Iterable

# The numbers are the same on every architecture.
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # a flag of the first
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
# All rights over files by ABI: 13 with the first; renaming between folders, truncating, and commands to devices came later.
_FILE_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
_TCP_RIGHTS = 0b11  # bind and connect
_SCOPES = 0b11  # abstract sockets and signals


def landlock_abi() -> int:
    """The newest ABI that this kernel speaks; 0 without Landlock."""
    if sys.platform != "linux":
        return 0
    return max(0, _syscall(_CREATE_RULESET, None, 0, _VERSION))


def restrict_files(readable: Iterable[str]) -> bool:
    """Leave this thread, and those it will start, the right to read below `readable` and no other right over files.

    What is open already stays open. False where the kernel has no Landlock. Raises OSError when it fails half way.
    """
    abi = landlock_abi()
    if not abi:
        return False
    files = _FILE_RIGHTS[min(abi, max(_FILE_RIGHTS))]
    attributes = struct.pack("QQQ", files, _TCP_RIGHTS if abi >= 4 else 0, _SCOPES if abi >= 6 else 0)
    rules = _checked(_syscall(_CREATE_RULESET, attributes, 24 if abi >= 6 else 16 if abi >= 4 else 8, 0))
    try:
        for place in readable:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):  # nothing to be read there
                _allow(rules, place)
        _checked(ctypes.CDLL(None, use_errno=True).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0))
        _checked(_syscall(_RESTRICT_SELF, rules, 0))
    finally:
        os.close(rules)
    return True


def _allow(rules: int, place: str) -> None:
    descriptor = os.open(place, os.O_PATH | os.O_CLOEXEC)
    try:
        rights = _READ_FILE | _READ_DIR if os.path.isdir(place) else _READ_FILE
        _checked(_syscall(_ADD_RULE, rules, _PATH_BENEATH, struct.pack("=Qi", rights, descriptor), 0))
    finally:
        os.close(descriptor)


def _syscall(number: int, *arguments: int | bytes | None) -> int:
    call = ctypes.CDLL(None, use_errno=True).syscall
    call.restype = ctypes.c_long
    return int(call(ctypes.c_long(number), *(ctypes.c_long(a) if isinstance(a, int) else a for a in arguments)))


def _checked(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
