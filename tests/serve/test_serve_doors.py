"""What needs a key, the pages of the server's own, what reaches the log, and what a killed server leaves behind."""

from __future__ import annotations

import base64
import html.parser
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from helpers_serve import Server, serving
from smolvlm.cli.main import main
from smolvlm.temporary import OwnFolder

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs the locks and signals of POSIX")


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("keyed")
    with pytest.MonkeyPatch.context() as patch, (folder / "key").open("w+") as out:
        patch.setattr("sys.stdout", out)
        assert main(["serve", "--new-key", "alice", "--keys-file", str(folder / "keys.json")]) == 0
        out.seek(0)
        key = out.read().strip()
    with serving(folder / "log", "--keys-file", str(folder / "keys.json")) as running:
        running.key = key
        yield running


def raw(server: Server, target: str, method: str = "GET", *headers: str) -> int:
    """The status of a request whose path nobody tidies up first."""
    host, port = server.url.removeprefix("http://").split(":")
    lines = [f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", "Content-Length: 0", *headers]
    answer = b""
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1"))
        while piece := connection.recv(65536):
            answer += piece
    return int(answer.split()[1])


OPEN = ["/", "/health", "/ready"]
CLOSED = [
    "/docs",
    "/openapi.json",
    "/metrics",
    "/v1/models",
    "/v1/models/nano",
    "/v1/files",
    "/v1/chat/completions",
    "/nowhere",
    "//v1/models",
    "/V1/models",
    "/v1/../v1/models",
    "/health/../v1/models",
    "/%761/models",
    "/v1%2Fmodels",
    "/v1/models/",
    "/health/",
    "/ready%2f",
    "//",
    "//health",
    "/health/x",
    "/./v1/models",
    "/v1;x/models",
    "/v1\\models",
    "/v1//models",
    "/metrics/",
    "/METRICS",
    "/docs/",
    "/%64ocs",
    "http://localhost/v1/models",
    "*",
    "/redoc",
    "/docs/oauth2-redirect",
]


@pytest.mark.parametrize("path", OPEN)
def test_what_needs_no_key(keyed: Server, path: str) -> None:
    assert raw(keyed, path) == 200
    assert raw(keyed, f"{path}?a=b") == 200
    assert raw(keyed, path, "POST") == 401


@pytest.mark.parametrize("path", CLOSED)
def test_everything_else_needs_one(keyed: Server, path: str) -> None:
    """However the path is written: nothing but a refusal without a key, in every method."""
    for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT", "QUERY"):
        assert raw(keyed, path, method) in (400, 401), method
    with_key = raw(keyed, path, "GET", f"Authorization: Bearer {keyed.key}")
    assert with_key in (200, 400, 404, 405)


def test_a_key_as_password_opens_pages_and_nothing_else(keyed: Server) -> None:
    right = {"Authorization": "Basic " + base64.b64encode(f"any:{keyed.key}".encode()).decode()}
    wrong = {"Authorization": "Basic " + base64.b64encode(b"any:sk-wrong").decode()}
    for path in ("/docs", "/openapi.json", "/metrics"):
        assert httpx.get(keyed.url + path, headers=right).status_code == 200
        refused = httpx.get(keyed.url + path, headers=wrong)
        assert (refused.status_code, "Basic" in refused.headers["www-authenticate"]) == (401, True)
    for given in ("Basic", "Basic !!!", "Bearer", "basic " + base64.b64encode(b"no colon").decode(), "Digest x"):
        assert httpx.get(f"{keyed.url}/docs", headers={"Authorization": given}).status_code == 401
    assert httpx.get(f"{keyed.url}/v1/models", headers=right).status_code == 401
    assert "Basic" not in httpx.get(f"{keyed.url}/v1/models").headers["www-authenticate"]


class _Loads(html.parser.HTMLParser):
    """Everything in a page that a browser would fetch or run."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("script", "link", "img", "iframe", "object", "embed", "base", "form", "video", "audio", "svg"):
            self.found.append(tag)
        self.found += [name for name, _ in attrs if name == "src" or name.startswith("on") or name == "style"]


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_the_pages_load_nothing(server: Server, path: str) -> None:
    answer = httpx.get(server.url + path, headers={"Accept": "text/html"})
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    page = _Loads()
    page.feed(answer.text)
    assert page.found == []
    assert not re.search(r"href=['\"]?(?:https?:)?//", answer.text)


def test_the_page_has_every_operation_and_field(server: Server) -> None:
    document = httpx.get(f"{server.url}/openapi.json").json()
    page = httpx.get(f"{server.url}/docs").text
    for path in document["paths"]:
        assert f"<code>{path}</code>" in page
    for name, schema in document["components"]["schemas"].items():
        assert f'id="{name}"' in page
        for field in schema.get("properties", {}):
            assert f"<code>{field}</code>" in page
    assert "fastapi" not in page.lower()


def test_the_front_page_leads_on(server: Server) -> None:
    told = httpx.get(f"{server.url}/").json()
    assert (told["name"], told["model"], told["docs"]) == ("smolvlm", "nano", "/docs")
    for endpoint in told["endpoints"]:
        assert httpx.get(server.url + endpoint).status_code in (200, 405), endpoint
    assert 'href="docs"' in httpx.get(f"{server.url}/", headers={"Accept": "text/html"}).text


def test_words_of_clients_in_the_log(server: Server) -> None:
    """Of methods, paths, names and broken uploads nothing reaches it; every line stays one JSON object."""
    forged = 'x"}\r\n{"message": "forged"}\x1b[31m\x7f'
    assert raw(server, "/" + "%1b%5b31mforged%0d%0a", "FORGEDMETHOD") in (404, 405)
    headers = {"Content-Type": "multipart/form-data; boundary=forged"}
    for body in (b"--forged\r\nforged: forged\x1b[31m\r\n\r\n", b"forged" * 100, b"--forged\r\n\x00\x1b\r\n"):
        assert httpx.post(f"{server.url}/v1/files", content=body, headers=headers).status_code == 400
    httpx.post(
        f"{server.url}/v1/chat/completions",
        content=json.dumps({"model": forged, forged: forged}),
        headers={"Content-Type": "application/json", "User-Agent": "forged", "X-Request-Id": "forged forged"},
    )
    time.sleep(0.2)
    log = server.log.read_text()
    assert "forged" not in log.lower()
    lines = [line for line in log.splitlines() if line.startswith("{")]
    assert all(isinstance(json.loads(line), dict) and "\x1b" not in line and "\x7f" not in line for line in lines)


UPLOADS: dict[str, tuple[bytes, bytes]] = {
    "20000 parts": (b"", b'--b\r\nContent-Disposition: form-data; name="a"\r\n\r\nx\r\n' * 20_000 + b"--b--\r\n"),
    "20000 files": (b"", b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nx\r\n' * 20_000 + b"--b--\r\n"),
    "a header of 30 MB": (b"", b"--b\r\nX: " + b"a" * 30_000_000 + b"\r\n\r\nx\r\n--b--\r\n"),
    "a million headers": (b"", b"--b\r\n" + b"X: a\r\n" * 1_000_000 + b"\r\nx\r\n--b--\r\n"),
    "a field of 30 MB": (b"", b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n' + b"a" * 30_000_000 + b"\r\n--b--\r\n"),
    "a preamble of 30 MB": (b"", b"\r\n" * 15_000_000 + b"--b--\r\n"),
    "an endless form": (b"application/x-www-form-urlencoded", b"a=1&" * 8_000_000),
    "a long name": (b"", b'--b\r\nContent-Disposition: form-data; name="file"; filename="' + b"a" * 30_000_000 + b'"\r\n\r\nx\r\n'),
}


@pytest.mark.parametrize("name", UPLOADS)
def test_uploads_that_are_all_head(server: Server, name: str) -> None:
    """Refused, while others are answered: nobody waits seconds for them."""
    kind, body = UPLOADS[name]
    began = time.monotonic()
    clock = _cpu(server)
    try:
        headers = {"Content-Type": kind.decode() or "multipart/form-data; boundary=b"}
        status = httpx.post(f"{server.url}/v1/files", content=body, headers=headers, timeout=60).status_code
        assert status in (400, 413, 415), status
    except httpx.TransportError:
        pass  # closed before all of it was sent
    assert _cpu(server) - clock < 3, f"{time.monotonic() - began:.1f} s"
    assert httpx.get(f"{server.url}/health", timeout=10).status_code == 200


def _cpu(server: Server) -> float:
    psutil: Any = pytest.importorskip("psutil", reason="measures with psutil")
    return float(sum(psutil.Process(server.process.pid).cpu_times()[:2]))


OWNER = """
import sys, time
from smolvlm.temporary import OwnFolder
folder = OwnFolder("smolvlm-test-")
(folder.path / "upload").write_text("x")
print(folder.path, flush=True)
time.sleep(600)
"""


def test_what_a_killed_process_leaves_is_deleted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the next one; the folder of a living one stays, and so does what is not ours."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    environ = os.environ | {"TMPDIR": str(tmp_path)}
    run = [subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True, env=environ) for _ in range(2)]
    try:
        paths = [Path(process.stdout.readline().strip()) for process in run if process.stdout is not None]
        unlocked, linked = tmp_path / "smolvlm-test-unlocked", tmp_path / "smolvlm-test-linked"
        unlocked.mkdir()
        elsewhere = tmp_path / "elsewhere"
        elsewhere.mkdir()
        (elsewhere / ".lock").touch()
        linked.symlink_to(elsewhere)
        run[0].send_signal(signal.SIGKILL)
        run[0].wait(10)
        assert paths[0].exists()
        with OwnFolder("smolvlm-test-") as mine:
            assert [path.exists() for path in (*paths, unlocked, linked, elsewhere / ".lock")] == [False, True, True, True, True]
            assert (paths[1] / "upload").exists()
            assert mine.path.stat().st_mode & 0o077 == 0
        assert not mine.path.exists()
    finally:
        for process in run:
            process.kill()
            process.wait(10)
            if process.stdout is not None:
                process.stdout.close()


@pytest.mark.slow
def test_a_killed_servers_uploads_go_with_the_next(tmp_path: Path) -> None:
    environ = {"TMPDIR": str(tmp_path)}
    with serving(tmp_path / "first", environ=environ) as server:
        upload = httpx.post(f"{server.url}/v1/files", files={"file": ("a.png", b"secret")})
        assert upload.status_code == 200
        server.process.kill()
        server.process.wait(10)
    (left,) = tmp_path.glob("smolvlm-files-*")
    assert any(b"secret" in path.read_bytes() for path in left.iterdir())
    with serving(tmp_path / "second", environ=environ) as server:
        assert not left.exists()
        assert len(list(tmp_path.glob("smolvlm-files-*"))) == 1
        assert server.stop() == 0
    assert list(tmp_path.glob("smolvlm-files-*")) == []
