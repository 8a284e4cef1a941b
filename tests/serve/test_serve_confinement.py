"""What a decoding process can no longer do, tried from inside a real one; and that it reads every format all the same."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers_heic import make_heic
from helpers_media import encoded, make_clip, photo
from helpers_serve_media import LIMITS, PNG, SMALL, Loop, running_gate
from smolvlm.errors import SourceError
from smolvlm.media import load_image, sample_video, split_image
from smolvlm.media.sandbox import process as media_process
from smolvlm.media.sandbox.gate import MediaGate, MediaLimits, StoredFile
from smolvlm.media.sandbox.landlock import landlock_abi
from smolvlm.media.sandbox.seccomp import NUMBERS
from smolvlm.prompt.messages import ImagePart, VideoPart

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Landlock and seccomp are of Linux; elsewhere a log line says so")

# A decoding process whose decoder was taken over: it tries what it is told, and answers with what became of it.
TAKEN_OVER = """
import json, os, sys
from smolvlm.media.sandbox import worker
from smolvlm.media.sandbox.wire import Reply

def attempt(code, folder, server):
    try:
        exec(code, {"os": os, "sys": sys, "folder": folder, "server": server})
        return "done"
    except BaseException as error:
        return type(error).__name__

class Taken(worker.Decoder):
    def answer(self, job, data):
        if job.label == "warm-up":
            return super().answer(job, data)
        asked = json.loads(data)
        return Reply(error="SourceError", message=attempt(asked["code"], asked["folder"], asked["server"])), b""

worker.Decoder = Taken
worker.main()
"""

FORBIDDEN = {
    "read passwd": "open('/etc/passwd').read()",
    "read the server's own file": "open(folder + '/keys.json').read()",
    "read through /proc": "open(f'/proc/{server}/environ', 'rb').read()",
    "read its own memory": "open('/proc/self/mem', 'rb').read(1)",
    "list a folder": "os.listdir(folder)",
    "list the root": "os.listdir('/')",
    "write a file": "open(folder + '/new', 'w')",
    "write into Python's own code": "open(os.__file__, 'a')",
    "append": "os.open(folder + '/keys.json', os.O_WRONLY | os.O_APPEND)",
    "truncate": "os.truncate(folder + '/keys.json', 0)",
    "make a folder": "os.mkdir(folder + '/new')",
    "delete": "os.unlink(folder + '/keys.json')",
    "rename": "os.rename(folder + '/keys.json', folder + '/x')",
    "link": "os.link(folder + '/keys.json', folder + '/x')",
    "symlink": "os.symlink('/etc/passwd', folder + '/x')",
    "rights": "os.chmod(folder + '/keys.json', 0o777)",
    "times": "os.utime(folder + '/keys.json')",
    "a socket": "import socket; socket.socket()",
    "a local socket": "import socket; socket.socket(socket.AF_UNIX)",
    "a pair of sockets": "import socket; socket.socketpair()",
    "connect by number": "import ctypes; l = ctypes.CDLL(None, use_errno=True); l.socket(2, 1, 0) < 0 and 1 / 0",
    "execve": "os.execv('/bin/true', ['true'])",
    "execve of Python": "os.execv(sys.executable, ['python', '-c', '1'])",
    "a program": "import subprocess; subprocess.run(['/bin/true'])",
    "a shell": "if os.system('true'): raise OSError",
    "fork": "os.fork()",
    "a signal to the server": "os.kill(server, 0)",
    "limits of the server": "import resource; resource.prlimit(server, resource.RLIMIT_CPU)",
    "ptrace": "import ctypes; l = ctypes.CDLL(None); l.ptrace(16, server, 0, 0) < 0 and 1 / 0",
    "memory of the server": "import ctypes; l = ctypes.CDLL(None); l.process_vm_readv(server, 0, 0, 0, 0, 0) < 0 and 1 / 0",
    "a file in memory": "os.memfd_create('x')",
    "higher priority": "os.setpriority(os.PRIO_PROCESS, 0, 19)",
    "another core": "os.sched_setaffinity(0, range(64))",
    "more memory": "import resource; resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))",
    "a name space": "import ctypes; l = ctypes.CDLL(None); l.unshare(0x10000000) < 0 and 1 / 0",
    "the old door of 32 bits": "import ctypes; l = ctypes.CDLL(None); l.syscall(0x40000000 + 41, 2, 1, 0) < 0 and 1 / 0",
}
ALLOWED = {
    "a module that was not loaded": "import xml.dom.minidom, PIL.ImageCms",
    "threads": "import threading; t = threading.Thread(target=len, args=('x',)); t.start(); t.join()",
    "random bytes": "os.urandom(8)",
    "clocks": "import time; time.sleep(0.001); time.monotonic()",
    "memory": "bytearray(100_000_000)",
}


@pytest.fixture(scope="module")
def taken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, MediaGate, Path]]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "keys.json").write_text("secret")
    with contextlib.ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:  # for its start alone
            patch.setattr(media_process, "COMMAND", (sys.executable, "-c", TAKEN_OVER))
            loop, gate = stack.enter_context(running_gate(MediaLimits()))
        assert gate.missing_limits == (), "this kernel has both; a kernel without is named here and in the log"
        yield loop, gate, folder
    assert [path.name for path in folder.iterdir()] == ["keys.json"]
    assert (folder / "keys.json").read_text() == "secret"


def tried(taken: tuple[Loop, MediaGate, Path], code: str) -> str:
    loop, gate, folder = taken
    order = json.dumps({"code": code, "folder": str(folder), "server": os.getpid()})
    with pytest.raises(SourceError) as answer:
        loop(gate.open(ImagePart(order.encode())))
    return str(answer.value)


@pytest.mark.parametrize("what", FORBIDDEN)
def test_a_decoder_that_is_taken_over_cannot(taken: tuple[Loop, MediaGate, Path], what: str) -> None:
    assert tried(taken, FORBIDDEN[what]) in ("PermissionError", "OSError", "ValueError", "ZeroDivisionError"), what


@pytest.mark.parametrize("what", ALLOWED)
def test_a_decoder_still_can(taken: tuple[Loop, MediaGate, Path], what: str) -> None:
    assert tried(taken, ALLOWED[what]) == "done"


def test_the_attempts_work_where_nothing_is_forbidden(tmp_path: Path) -> None:
    """So that a misspelled attempt does not pass for a forbidden one. Those that would change this machine are left out."""
    (tmp_path / "keys.json").write_text("secret")
    for what in (
        "read passwd",
        "list the root",
        "write a file",
        "a socket",
        "connect by number",
        "a program",
        "a shell",
        "a file in memory",
        "higher priority",
        "rights",
        "times",
        "a pair of sockets",
        "another core",
    ):
        code = f"import os, sys\nfolder, server = {str(tmp_path)!r}, os.getppid()\n{FORBIDDEN[what]}"
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{what}: {done.stderr}"


def test_the_numbers_are_the_kernels() -> None:
    """Against the headers of the C library's package, where they are installed."""
    headers = {"x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h", "aarch64": "/usr/include/asm-generic/unistd.h"}
    for machine, header in headers.items():
        if not Path(header).exists():
            pytest.skip(f"{header} is not here (apt-get install linux-libc-dev)")
        text = Path(header).read_text().replace("__NR3264_", "__NR_")
        found = {name: int(number) for name, number in re.findall(r"#define __NR_(\w+)\s+(\d+)", text)}
        found["newfstatat"] = found.get("newfstatat", found.get("fstatat", 0))
        assert NUMBERS[machine] == {name: found[name] for name in NUMBERS[machine]}


@pytest.mark.skipif(os.geteuid() != 0, reason="the other tests run without privileges already")
def test_it_takes_no_privilege() -> None:
    code = (
        "import os, resource; from smolvlm.media.sandbox.confinement import code_places, confine\n"
        "code_places()  # what it imports must be readable; afterwards this Python may not be\n"
        "os.setgroups([]); os.setgid(65534); os.setuid(65534)\n"
        "print(confine(4096))\n"
        "try: open('/etc/passwd')\n"
        "except PermissionError: print('refused')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.split("\n") == ["[]", "refused", ""], done.stderr


def test_what_a_system_lacks_is_named() -> None:
    """A kernel without Landlock or a machine without a filter: the process works, and says what it could not give up."""
    code = (
        "from smolvlm.media.sandbox import confinement\n"
        "confinement.restrict_files = lambda _: False\n"
        "confinement.restrict_calls = lambda: False\n"
        "print(confinement.confine(4096)); open('/etc/passwd').read()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "['files (Landlock)', 'system calls (seccomp)']", done.stderr
    assert landlock_abi() > 0, "the other tests here were of no use"


def pictures() -> dict[str, bytes]:
    image = photo(96, 64)
    made = {kind: encoded(image, kind) for kind in ("JPEG", "PNG", "WEBP", "GIF", "BMP", "PPM", "AVIF", "JPEG2000", "ICO")}
    for compression in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits"):
        made[f"TIFF {compression}"] = encoded(image, "TIFF", compression=compression)
    buffer = io.BytesIO()
    image.save(buffer, "MPO", save_all=True, append_images=[image])
    made["MPO"] = buffer.getvalue()
    made["HEIC"] = make_heic(np.asarray(photo(128, 64)))
    made["16 bits"] = encoded(Image.fromarray(np.arange(64 * 64, dtype=np.uint16).reshape(64, 64) * 16), "PNG")
    made["CMYK"] = encoded(image.convert("CMYK"), "JPEG")
    return made


CLIPS: dict[str, dict[str, Any]] = {
    "h264.mp4": {},
    "hevc.mp4": {"codec": "libx265"},
    "h264.mkv": {},
    "vp9.webm": {"codec": "libvpx-vp9"},
    "vp8.webm": {"codec": "libvpx"},
    "av1.mp4": {"codec": "libsvtav1"},
    "mpeg4.avi": {"codec": "mpeg4"},
    "mjpeg.avi": {"codec": "mjpeg", "pix_fmt": "yuvj420p"},
    "h264.ts": {},
    "h264.flv": {},
    "mpeg2.mpg": {"codec": "mpeg2video"},
    "wmv.wmv": {"codec": "wmv2"},
    "h264.mov": {"rotation": 90},
    "vfr.mp4": {"pts": lambda i: i * i, "time_base": Fraction(1, 90)},
}


@pytest.fixture(scope="module")
def confined() -> Iterator[tuple[Loop, MediaGate]]:
    with running_gate(LIMITS) as found:
        assert found[1].missing_limits == ()
        yield found


@pytest.mark.parametrize("kind", pictures())
def test_pictures_are_read_all_the_same(confined: tuple[Loop, MediaGate], tmp_path: Path, kind: str) -> None:
    loop, gate = confined
    data = pictures()[kind]
    (tmp_path / "x").write_bytes(data)
    expected = split_image(load_image(data), SMALL).tiles
    for source in (data, StoredFile(tmp_path / "x")):
        assert np.array_equal(loop(gate.open(ImagePart(source))).tiles, expected)


@pytest.mark.parametrize("name", CLIPS)
def test_videos_are_read_all_the_same(confined: tuple[Loop, MediaGate], tmp_path: Path, name: str) -> None:
    loop, gate = confined
    clip = make_clip(tmp_path / name, 24, **CLIPS[name])
    expected = sample_video(clip, SMALL)
    for source in (clip.read_bytes(), StoredFile(clip)):
        assert np.array_equal(loop(gate.open(VideoPart(source))).tiles, expected.frames)


def test_a_process_opens_no_file_itself(confined: tuple[Loop, MediaGate], tmp_path: Path) -> None:
    """A file that only the server may read is read: what is handed on is the open file, not its name."""
    loop, gate = confined
    path = tmp_path / "mine.png"
    path.write_bytes(PNG)
    assert loop(gate.open(ImagePart(StoredFile(path)))).info.tile_count
    path.unlink()
    with pytest.raises(SourceError, match="no longer stored"):
        loop(gate.open(ImagePart(StoredFile(path))))
