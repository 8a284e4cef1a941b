"""Temporary files: gone with their owner, also after kill -9."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from helpers_serve_media import running_gate
from smolvlm.media.sandbox.limits import MediaLimits
from smolvlm.temporary import delete_file, make_file

FETCHING = """
import sys
from smolvlm.media import open_source
open_source(sys.argv[1])
"""


def test_the_folder_goes_with_its_last_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    made = [make_file() for _ in range(2)]
    for handle, path in made:
        os.close(handle)
        assert path.stat().st_mode & 0o077 == 0
    assert made[0][1].parent == made[1][1].parent
    delete_file(made[0][1])
    assert [path.exists() for _, path in made] == [False, True]
    delete_file(made[1][1])
    delete_file(made[1][1])
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="without file locks nothing is deleted there")
def test_what_a_killed_download_leaves_goes_when_a_server_starts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environ = {key: value for key, value in os.environ.items() if "proxy" not in key.lower()} | {"TMPDIR": str(tmp_path)}
    with socket.create_server(("127.0.0.1", 0)) as slow:
        port = slow.getsockname()[1]
        process = subprocess.Popen([sys.executable, "-c", FETCHING, f"http://127.0.0.1:{port}/clip.mp4"], env=environ)
        try:
            slow.settimeout(60)
            connection, _ = slow.accept()
            with connection:
                connection.recv(1 << 16)
                connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + bytes(1000))
                own, other = make_file(), list(tmp_path.glob("smolvlm-media-*/*"))
                assert len(other) >= 2, "the download has no file yet"
                process.send_signal(signal.SIGKILL)
                process.wait(10)
        finally:
            process.kill()
            process.wait(10)
    os.close(own[0])
    assert len(list(tmp_path.glob("smolvlm-media-*"))) == 2
    with running_gate(MediaLimits(workers=1)):
        left = list(tmp_path.glob("smolvlm-media-*"))
        assert left == [own[1].parent], "the killed one's is gone, that of the living stays"
    delete_file(own[1])
    assert not list(tmp_path.iterdir())
