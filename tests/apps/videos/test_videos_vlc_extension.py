"""The extension in the real VLC under Xvfb: a typed query, its list, and the jump, as VLC's own HTTP interface tells it."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers_videos import Programme
from smolvlm import SmolVLM
from smolvlm.apps.local_server import LocalServer
from smolvlm.apps.videos import vlc
from smolvlm.apps.videos.serving import VideoPages

NEEDED = ("vlc", "Xvfb", "xdotool")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        any(shutil.which(name) is None for name in NEEDED) or not list(Path("/usr/lib").glob("*/vlc/plugins/gui/libqt_plugin.so")),
        reason="needs VLC with windows: apt-get install --no-install-recommends vlc-bin vlc-plugin-base vlc-plugin-qt xvfb xdotool",
    ),
]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def until(found: Callable[[], Any], what: str, seconds: float = 60) -> Any:
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := found():
                return value
        except OSError:
            pass
        assert time.monotonic() < deadline, what
        time.sleep(0.3)


class Screen:
    """VLC on a screen of its own, as nobody where the tests run as root, which VLC refuses."""

    def __init__(self, home: Path, video: Path) -> None:
        self.port, display = free_port(), f":{free_port() % 20000 + 100}"
        self.env = {**os.environ, "HOME": str(home), "XDG_DATA_HOME": str(home / ".local/share"), "DISPLAY": display, "LANG": "C.UTF-8"}
        root = os.getuid() == 0
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._screen = subprocess.Popen(["Xvfb", display, "-screen", "0", "1200x800x24", "-nolisten", "tcp"], **quiet)
        time.sleep(2)
        command = ["vlc", "--intf", "qt", "--extraintf", "http", "--http-host", "127.0.0.1", "--http-port", str(self.port)]
        command += ["--http-password", "pw", "--aout", "dummy", "--vout", "dummy", "--no-qt-privacy-ask", "--loop", str(video)]
        self._vlc = subprocess.Popen(command, env=self.env, user="nobody" if root else None, **quiet)

    def close(self) -> None:
        for process in (self._vlc, self._screen):
            process.kill()
            process.wait()

    def status(self, command: str = "") -> Any:
        token = base64.b64encode(b":pw").decode()
        address = f"http://127.0.0.1:{self.port}/requests/status.json{command}"
        request = urllib.request.Request(address, headers={"Authorization": f"Basic {token}"})
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.load(answer)

    def do(self, *command: object) -> str:
        return subprocess.run(["xdotool", *map(str, command)], env=self.env, capture_output=True, text=True, timeout=30).stdout.strip()

    def click(self, x: float, y: float) -> None:
        """VLC's menus miss a click without a pause in it."""
        self.do("mousemove", round(x), round(y))
        time.sleep(0.5)
        self.do("mousedown", 1)
        time.sleep(0.3)
        self.do("mouseup", 1)
        time.sleep(0.8)

    def place(self, name: str) -> tuple[int, int, int, int]:
        """x, y, width, height of the newest window of that name."""
        window = until(lambda: self.do("search", "--name", name).split(), f"a window {name}")[-1]
        self.do("windowfocus", window)
        lines = dict(line.split("=") for line in self.do("getwindowgeometry", "--shell", window).splitlines())
        return int(lines["X"]), int(lines["Y"]), int(lines["WIDTH"]), int(lines["HEIGHT"])


def test_a_typed_query_jumps(programme: Programme, nano: SmolVLM, monkeypatch: pytest.MonkeyPatch) -> None:
    start_s = next(event.start_s for event in programme.events if event.text == "the cat falls")
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        home = Path(folder)
        monkeypatch.setenv("XDG_DATA_HOME", str(home / ".local/share"))
        vlc.install(free_port())
        shutil.copy(programme.path, home / "programme.mp4")
        programme.library.medium(home / "programme.mp4")  # the newest place of the same content
        link = vlc.link()
        server = LocalServer(VideoPages(nano, programme.library).routes(), port=link.port, token=link.token)
        server.start()
        for path in (home, *home.rglob("*")):
            path.chmod(0o777)
        screen = Screen(home, home / "programme.mp4")
        try:
            until(lambda: screen.status()["state"] == "playing", "VLC plays")
            x, y, _, _ = screen.place("VLC media player")
            screen.do("key", "alt+i")
            time.sleep(1.5)
            screen.click(x + 465, y + 242)  # the entry at the foot of the View menu
            x, y, width, height = screen.place("^smolvlm$")
            screen.click(x + width / 4, y + 22)
            screen.do("type", "--delay", "60", "the cat falls")
            screen.click(x + width - 40, y + 22)
            time.sleep(6)
            screen.click(x + width / 3, y + 51)
            screen.status(f"?command=seek&val={round(start_s) + 16}")  # playing on from there would need half a minute to come by
            until(lambda: screen.status()["time"] >= start_s + 15, "the seek", 5)
            screen.click(x + width / 8, y + height - 45)
            until(lambda: start_s <= screen.status()["time"] <= start_s + 4, "the jump", 4)
            entries = screen.status()["information"]["category"]["meta"]["filename"]
            assert entries == "programme.mp4"
        finally:
            screen.close()
            server.close()
