"""Playlists in the real VLC, headless: which file it plays, and from which second."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers_media import make_clip
from smolvlm.apps.videos.playlists import Moment, playlist

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("vlc") is None, reason="needs VLC: apt-get install --no-install-recommends vlc-bin vlc-plugin-base"),
]
NAMES = ["with space & more/é #1 100%.mp4", "plain.mp4"]


@contextmanager
def vlc(path: Path, home: Path) -> Iterator[Any]:
    """Ask VLC's HTTP interface: `ask("status.json?command=...")`. VLC refuses root, so it runs as nobody there."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = ["vlc", "-I", "http", "--http-host", "127.0.0.1", "--http-port", str(port), "--http-password", "pw"]
    command += ["--vout", "dummy", "--aout", "dummy", "--no-playlist-autostart", str(path)]
    root = hasattr(os, "getuid") and os.getuid() == 0
    process = subprocess.Popen(
        command,
        env={**os.environ, "HOME": str(home)},
        user="nobody" if root else None,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    token = base64.b64encode(b":pw").decode()

    def ask(what: str) -> Any:
        request = urllib.request.Request(f"http://127.0.0.1:{port}/requests/{what}", headers={"Authorization": f"Basic {token}"})
        deadline = time.monotonic() + 40
        while True:
            try:
                with urllib.request.urlopen(request, timeout=5) as answer:
                    return json.load(answer)
            except OSError:
                assert process.poll() is None, "VLC ended"
                assert time.monotonic() < deadline, "VLC does not answer"
                time.sleep(0.2)

    try:
        yield ask
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("suffix", [".xspf", ".m3u8"])
def test_vlc_plays_each_moment_from_its_second(suffix: str) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to other users
        root = Path(folder)
        moments = []
        for i, name in enumerate(NAMES):
            (root / name).parent.mkdir(exist_ok=True)
            make_clip(root / name, 60 * 25, options={"preset": "ultrafast", "g": "25"})
            moments.append(Moment(root / name, 20.5 + 10 * i, 55.0, f"<b>{i}</b> & so on"))
        out = root / f"list{suffix}"
        out.write_text(playlist(moments, out), encoding="utf-8")
        (root / "home").mkdir()
        for path in (root, *root.rglob("*")):
            path.chmod(0o777)
        with vlc(out, root / "home") as ask:
            leaves = _leaves(ask("playlist.json"))
            if not leaves or leaves[0]["name"].startswith("list"):  # a playlist is opened when it is first played
                ask("status.json?command=pl_play")
                time.sleep(1)
                leaves = _leaves(ask("playlist.json"))
            entries = [leaf for leaf in leaves if "list." not in leaf["uri"]]
            for moment, entry in zip(moments, entries, strict=True):
                assert _same(entry["uri"], moment), entry["uri"]
                ask(f"status.json?command=pl_play&id={entry['id']}")
                deadline = time.monotonic() + 20
                status = ask("status.json")
                while not (status["state"] == "playing" and int(status["currentplid"]) == int(entry["id"]) and status["time"] > 0):
                    assert time.monotonic() < deadline, status
                    time.sleep(0.2)
                    status = ask("status.json")
                assert moment.start_s - 1 <= status["time"] <= moment.start_s + 8, (moment, status["time"])
                assert moment.title == entry["name"]


def _leaves(node: Any) -> list[Any]:
    if node.get("type") == "leaf":
        return [node]
    return [leaf for child in node.get("children", ()) for leaf in _leaves(child)]


def _same(uri: str, moment: Moment) -> bool:
    from urllib.parse import unquote, urlsplit

    return unquote(urlsplit(uri.replace("#", "%23")).path) == str(moment.path)
