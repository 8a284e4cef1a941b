"""A filter of system calls (seccomp): what a process that only computes on what it is given never needs is refused.

The list says what is allowed. A call that is not on it fails with EPERM; one that is newer than this file with ENOSYS, so
that a C library falls back on an older one. The filter holds for all threads, and can never be undone.
Source: https://docs.kernel.org/userspace-api/seccomp_filter.html; numbers: the kernel's unistd.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# What Python, NumPy and the decoders use, once everything is loaded: memory, threads, clocks, pipes that are open, and
# opening and reading files, which Landlock then narrows.
_COMMON = """read write close fstat lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending
ioctl pread64 readv writev sched_yield mremap msync mincore madvise dup dup3 nanosleep getpid recvmsg exit exit_group uname fcntl
getcwd gettimeofday getrlimit setrlimit getrusage sysinfo times getuid getgid geteuid getegid getppid sigaltstack statfs fstatfs
setitimer sched_getparam sched_getscheduler sched_getattr mlock munlock prctl gettid futex sched_getaffinity getdents64 set_tid_address
restart_syscall fadvise64 clock_gettime clock_getres clock_nanosleep newfstatat readlinkat faccessat faccessat2 pselect6 ppoll
set_robust_list getcpu getrandom membarrier statx rseq""".split()
_OLD = "stat lstat poll access select dup2 readlink arch_prctl time".split()  # on x86-64 only

NUMBERS: dict[str, dict[str, int]] = {
    "x86_64": {
        "read": 0,
        "write": 1,
        "open": 2,
        "close": 3,
        "stat": 4,
        "fstat": 5,
        "lstat": 6,
        "poll": 7,
        "lseek": 8,
        "mmap": 9,
        "mprotect": 10,
        "munmap": 11,
        "brk": 12,
        "rt_sigaction": 13,
        "rt_sigprocmask": 14,
        "rt_sigreturn": 15,
        "ioctl": 16,
        "pread64": 17,
        "readv": 19,
        "writev": 20,
        "access": 21,
        "select": 23,
        "sched_yield": 24,
        "mremap": 25,
        "msync": 26,
        "mincore": 27,
        "madvise": 28,
        "dup": 32,
        "dup2": 33,
        "nanosleep": 35,
        "setitimer": 38,
        "getpid": 39,
        "recvmsg": 47,
        "clone": 56,
        "exit": 60,
        "uname": 63,
        "fcntl": 72,
        "getcwd": 79,
        "readlink": 89,
        "gettimeofday": 96,
        "getrlimit": 97,
        "getrusage": 98,
        "sysinfo": 99,
        "times": 100,
        "getuid": 102,
        "getgid": 104,
        "geteuid": 107,
        "getegid": 108,
        "getppid": 110,
        "rt_sigpending": 127,
        "sigaltstack": 131,
        "statfs": 137,
        "fstatfs": 138,
        "sched_getparam": 143,
        "sched_getscheduler": 145,
        "mlock": 149,
        "munlock": 150,
        "prctl": 157,
        "arch_prctl": 158,
        "setrlimit": 160,
        "gettid": 186,
        "time": 201,
        "futex": 202,
        "sched_getaffinity": 204,
        "getdents64": 217,
        "set_tid_address": 218,
        "restart_syscall": 219,
        "fadvise64": 221,
        "clock_gettime": 228,
        "clock_getres": 229,
        "clock_nanosleep": 230,
        "exit_group": 231,
        "tgkill": 234,
        "openat": 257,
        "newfstatat": 262,
        "readlinkat": 267,
        "faccessat": 269,
        "pselect6": 270,
        "ppoll": 271,
        "set_robust_list": 273,
        "dup3": 292,
        "prlimit64": 302,
        "getcpu": 309,
        "sched_getattr": 315,
        "seccomp": 317,
        "getrandom": 318,
        "membarrier": 324,
        "statx": 332,
        "rseq": 334,
        "clone3": 435,
        "faccessat2": 439,
    },
    "aarch64": {
        "getcwd": 17,
        "dup": 23,
        "dup3": 24,
        "fcntl": 25,
        "ioctl": 29,
        "statfs": 43,
        "fstatfs": 44,
        "faccessat": 48,
        "openat": 56,
        "close": 57,
        "getdents64": 61,
        "lseek": 62,
        "read": 63,
        "write": 64,
        "readv": 65,
        "writev": 66,
        "pread64": 67,
        "pselect6": 72,
        "ppoll": 73,
        "readlinkat": 78,
        "newfstatat": 79,
        "fstat": 80,
        "exit": 93,
        "exit_group": 94,
        "set_tid_address": 96,
        "futex": 98,
        "set_robust_list": 99,
        "nanosleep": 101,
        "setitimer": 103,
        "clock_gettime": 113,
        "clock_getres": 114,
        "clock_nanosleep": 115,
        "sched_getscheduler": 120,
        "sched_getparam": 121,
        "sched_getaffinity": 123,
        "sched_yield": 124,
        "restart_syscall": 128,
        "tgkill": 131,
        "sigaltstack": 132,
        "rt_sigaction": 134,
        "rt_sigprocmask": 135,
        "rt_sigpending": 136,
        "rt_sigreturn": 139,
        "times": 153,
        "uname": 160,
        "getrlimit": 163,
        "setrlimit": 164,
        "getrusage": 165,
        "prctl": 167,
        "getcpu": 168,
        "gettimeofday": 169,
        "getpid": 172,
        "getppid": 173,
        "getuid": 174,
        "geteuid": 175,
        "getgid": 176,
        "getegid": 177,
        "gettid": 178,
        "sysinfo": 179,
        "recvmsg": 212,
        "brk": 214,
        "munmap": 215,
        "mremap": 216,
        "clone": 220,
        "mmap": 222,
        "fadvise64": 223,
        "mprotect": 226,
        "msync": 227,
        "mlock": 228,
        "munlock": 229,
        "mincore": 232,
        "madvise": 233,
        "prlimit64": 261,
        "sched_getattr": 275,
        "seccomp": 277,
        "getrandom": 278,
        "membarrier": 283,
        "statx": 291,
        "rseq": 293,
        "clone3": 435,
        "faccessat2": 439,
    },
}
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_NEWEST = 462  # of the calls that this file's author had before him
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16  # places in what the kernel shows the filter
_KILL, _ERROR, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_CLONE_THREAD = 0x10000
_WRITING = os.O_ACCMODE | os.O_CREAT | os.O_TRUNC | 0o20000000 if sys.platform == "linux" else 0  # the last: O_TMPFILE
_SET_FILTER, _ALL_THREADS, _NO_NEW_PRIVILEGES = 1, 1, 38


def restrict_calls() -> bool:
    """Install the filter in this process. False where there is none for the system or its kernel has no seccomp."""
    numbers = NUMBERS.get(platform.machine())
    if sys.platform != "linux" or numbers is None or struct.calcsize("P") != 8:
        return False
    code = _program(platform.machine(), os.getpid())
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(buffer))
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    if libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0):
        return False
    seccomp = ctypes.c_long(numbers["seccomp"])
    return bool(libc.syscall(seccomp, ctypes.c_long(_SET_FILTER), ctypes.c_long(_ALL_THREADS), program) == 0)


def _program(machine: str, pid: int) -> bytes:
    """The filter as the kernel runs it: a few instructions a rule, from the top, and the first that returns decides."""
    numbers = NUMBERS[machine]
    refused, unknown = _ERROR | errno.EPERM, _ERROR | errno.ENOSYS
    steps = [_step(_LOAD, _ARCHITECTURE), _step(_EQUAL, _ARCHITECTURES[machine], 1, 0), _step(_RETURN, _KILL), _step(_LOAD, _NUMBER)]
    for name in [*_COMMON, *(_OLD if machine == "x86_64" else ())]:
        steps += [_step(_EQUAL, numbers[name], 0, 1), _step(_RETURN, _ALLOW)]
    # The C library asks for clone3 first, whose arguments no filter can see, and is content with clone.
    steps += [_step(_EQUAL, numbers["clone3"], 0, 1), _step(_RETURN, unknown)]
    # A thread is welcome, a process is not.
    steps += _by_argument(numbers["clone"], 0, _step(_HAS_BITS, _CLONE_THREAD, 0, 1), _ALLOW, refused)
    for name, argument in (("open", 1), ("openat", 2)):
        if name in numbers:
            steps += _by_argument(numbers[name], argument, _step(_HAS_BITS, _WRITING, 0, 1), refused, _ALLOW)
    steps += _by_argument(numbers["tgkill"], 0, _step(_EQUAL, pid, 0, 1), _ALLOW, refused)  # abort() ends itself
    steps += _by_argument(numbers["prlimit64"], 0, _step(_EQUAL, 0, 0, 1), _ALLOW, refused)  # its own limits only
    steps += [_step(_AT_LEAST, _NEWEST, 0, 1), _step(_RETURN, unknown), _step(_RETURN, refused)]
    return b"".join(steps)


def _by_argument(number: int, argument: int, test: bytes, then: int, otherwise: int) -> list[bytes]:
    """For one call, the answer by the low half of an argument."""
    load = _step(_LOAD, _ARGUMENTS + 8 * argument)
    return [_step(_EQUAL, number, 0, 4), load, test, _step(_RETURN, then), _step(_RETURN, otherwise)]


def _step(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, value)
