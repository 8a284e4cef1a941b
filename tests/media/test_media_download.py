"""Downloads from a real local server: redirects, caps, slow bodies, and the addresses that a guarded server refuses."""

from __future__ import annotations

import asyncio
import http.server
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from helpers_media import encoded, photo
from smolvlm.errors import SourceError
from smolvlm.media import Limits, SourcePolicy, load_image, open_source
from smolvlm.media.fetch import policy, urls

PNG = encoded(photo(30, 20), "PNG")


class _Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        port = self.server.server_address[1]
        routes = {
            "/hop": f"http://127.0.0.1:{port}/photo.png",
            "/relative": "photo.png",
            "/loop": "/loop",
            "/file": "file:///etc/passwd",
            "/userinfo": f"http://a:b@127.0.0.1:{port}/photo.png",
            "/junk": "http://[",
        }
        if self.path in routes:
            self.send_response(302)
            self.send_header("Location", routes[self.path])
            self.end_headers()
            return
        if self.path == "/missing":
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("X-Host", self.headers["Host"])
        if self.path == "/lies":
            self.send_header("Content-Length", str(10**15))
        self.end_headers()
        try:
            if self.path == "/endless":
                while True:
                    self.wfile.write(bytes(1 << 16))
            if self.path == "/slow":
                for _ in range(100):
                    self.wfile.write(b"x")
                    self.wfile.flush()
                    time.sleep(0.1)
            if self.path == "/silent":
                time.sleep(3)
            if self.path != "/empty":
                self.wfile.write(PNG)
        except OSError:
            pass  # the client has seen enough

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Handler) as httpd:
        httpd.daemon_threads = True
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_address[1]}"
        httpd.shutdown()


@pytest.fixture(autouse=True)
def _no_proxy_and_no_leftovers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    yield
    assert not list(tmp_path.glob("smolvlm-*")), "a download left its temporary file behind"


@pytest.mark.parametrize("path", ["/photo.png", "/hop", "/relative", "/photo.png?a=b#c"])
def test_a_picture_from_a_url(server: str, path: str) -> None:
    assert np.array_equal(np.asarray(load_image(server + path)), np.asarray(photo(30, 20)))


def test_the_temporary_file_lives_as_long_as_the_source(server: str) -> None:
    with open_source(server + "/photo.png") as source:
        assert source.path is not None
        assert source.path.read_bytes() == PNG
        assert source.label == server + "/photo.png"
    assert not source.path.exists()


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("/loop", "more than 2 redirects"),
        ("/file", "file:// addresses are not opened"),
        ("/userinfo", "before '@'"),
        ("/junk", "not a valid URL"),
        ("/missing", "answered 404"),
        ("/empty", "empty file"),
        ("/endless", "limit of 100000 bytes"),
        ("/lies", "limit of 100000 bytes"),
        ("/slow", "not finished after"),
        ("/silent", "no answer within"),
    ],
)
def test_bad_servers(server: str, path: str, message: str) -> None:
    limits = Limits(max_download_bytes=100_000, max_redirects=2, timeout_s=1.0, max_download_s=0.5 if path == "/slow" else 5.0)
    with pytest.raises(SourceError, match=message) as caught:
        open_source(server + path, SourcePolicy(limits=limits))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://a\\@b/x", "backslash"),
        ("http://a b/x", "a space"),
        ("http://a\tb/", "control"),
        ("http://u:p@host/x", "'@'"),
        ("http:///x.jpg", "names no host"),
        ("http://host:99999/x", "not a valid URL"),
        ("http://[::1/x", "not a valid URL"),
        ("http://nothing.invalid/x.jpg", "download failed"),
        ("http://127.0.0.1:9/x", "download failed"),
        ("http://" + "a" * 300 + ".org/", "failed|not known"),
        ("http://x..y/", "failed|not known"),
    ],
)
def test_bad_urls(url: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_source(url, SourcePolicy(limits=Limits(timeout_s=5)))


GUARDED = SourcePolicy(allow_private_hosts=False, limits=Limits(timeout_s=5))


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "10.0.0.8",
        "192.168.1.1",
        "169.254.169.254",
        "0.0.0.0",
        "[::ffff:10.0.0.1]",
        "2130706433",
        "0x7f000001",
        "127.1",
        "[64:ff9b::a00:1]",
        "[2002:a00:1::]",
        "100.64.0.1",
        "224.0.0.1",
        "[fe80::1]",
        "[fd00::1]",
    ],
)
def test_private_addresses_are_refused(host: str) -> None:
    with pytest.raises(SourceError, match="private network|not known|failed"):
        open_source(f"http://{host}:1/x.png", GUARDED)


def test_the_checked_address_is_the_one_connected_to(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that resolves to a public address first and to a private one later is asked only once."""
    asked: list[str] = []
    real = socket.getaddrinfo
    port = int(server.rsplit(":", 1)[1])

    def resolve(host, *args, **kwargs):  # type: ignore[no-untyped-def]
        asked.append(str(host))
        if host == "rebind.example":
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]
        return real(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(SourceError, match="private network"):
        open_source(f"http://rebind.example:{port}/photo.png", GUARDED)
    monkeypatch.setattr(policy, "is_public", lambda address: address == "127.0.0.1")
    asked.clear()
    with open_source(f"http://rebind.example:{port}/photo.png", GUARDED) as source:
        assert source.head(8) == PNG[:8]
    assert asked.count("rebind.example") == 1
    assert set(asked) <= {"rebind.example", "127.0.0.1"}


def test_redirects_are_checked_too(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host counts as public here; the redirect goes to one that does not."""
    real = socket.getaddrinfo
    port = int(server.rsplit(":", 1)[1])

    def resolve(host, *args, **kwargs):  # type: ignore[no-untyped-def]
        return real("127.0.0.1" if host == "outside.example" else host, *args, **kwargs)

    seen: list[str] = []

    def public_once(address: str) -> bool:
        seen.append(address)
        return len(seen) == 1

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    monkeypatch.setattr(policy, "is_public", public_once)
    with pytest.raises(SourceError, match="private network"):
        open_source(f"http://outside.example:{port}/hop", GUARDED)
    assert seen == ["127.0.0.1", "127.0.0.1"]


def test_public_addresses_are_public() -> None:
    for address in ("8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"):
        assert urls.is_public(address), address
    for address in (
        "not an address",
        "",
        "127.0.0.1",
        "::",
        "fe80::1%eth0",
        "198.18.0.1",
        "255.255.255.255",
        "::127.0.0.1",
        "fec0::1",
        "5f00::1",
        "64:ff9b:1::808:808",
        "64:ff9b::a9fe:a9fe",
        "168.63.129.16",
    ):
        assert not urls.is_public(address), address


def test_inside_a_running_event_loop(server: str) -> None:
    """As in a notebook: its loop is blocked, and neither used nor replaced."""

    async def cell() -> bytes:
        before = asyncio.get_running_loop()
        with open_source(server + "/photo.png") as source:
            assert asyncio.get_running_loop() is before
            return source.head(8)

    assert asyncio.run(cell()) == PNG[:8]


def test_ctrl_c_ends_a_download(server: str) -> None:
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell's background jobs ignore it
        f"from smolvlm.media import open_source; print('begun', flush=True); open_source({server + '/slow'!r})"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(0.7)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    _, errors = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in errors
    assert time.monotonic() - began < 5, "/slow takes ten seconds"
