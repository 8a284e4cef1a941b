"""The local server: the token, the Host header, other sites, parts of files, and what a route raises."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from pathlib import Path

import pytest

from smolvlm.apps.local_server import LocalServer, Reply, Request
from smolvlm.errors import ParamsError


def defect(_: Request) -> Reply:
    raise RuntimeError("secret detail")


def refuse(_: Request) -> Reply:
    raise ParamsError("say what to do.")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[LocalServer]:
    (tmp_path / "v.mp4").write_bytes(bytes(range(256)) * 4)
    routes = {
        "/": lambda request: Reply.text(request.query.get("q", "page")),
        "/file": lambda request: Reply.of_file(tmp_path / "v.mp4", request),
        "/gone": lambda request: Reply.of_file(tmp_path / "gone.mp4", request),
        "/defect": defect,
        "/refuse": refuse,
    }
    server = LocalServer(routes)
    server.start()
    yield server
    server.close()


def ask(server: LocalServer, path: str, method: str = "GET", **headers: str) -> tuple[int, bytes, http.client.HTTPMessage]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers={name.replace("_", "-"): value for name, value in headers.items()})
        answer = connection.getresponse()
        return answer.status, answer.read(), answer.headers
    finally:
        connection.close()


def test_the_token_opens_and_nothing_else_does(server: LocalServer) -> None:
    assert ask(server, f"/{server.token}/?q=a%20cat")[:2] == (200, b"a cat")
    for path in ("/", "/x/", f"/{server.token[:-1]}/", f"/{server.token}x/", "//", "/%00/", f"/../{server.token}/", "/%C3%BC/"):
        status, body, _ = ask(server, path)
        assert status in (400, 403), path
        assert server.token.encode() not in body
    assert ask(server, f"/{server.token}/absent")[0] == 404


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "127.0.0.1"}, 421),  # another port is another site
        ({"Sec_Fetch_Site": "cross-site"}, 403),
        ({"Sec_Fetch_Site": "same-site"}, 403),
        ({"Sec_Fetch_Site": "same-origin"}, 200),
    ],
)
def test_other_sites_are_not_answered_even_with_the_token(server: LocalServer, headers: dict[str, str], status: int) -> None:
    assert ask(server, f"/{server.token}/", **headers)[0] == status


def test_nothing_but_reading_is_answered(server: LocalServer) -> None:
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        assert ask(server, f"/{server.token}/", method)[0] == 501
    status, body, headers = ask(server, f"/{server.token}/", "HEAD")
    assert (status, body, headers["Content-Length"]) == (200, b"", "4")


@pytest.mark.parametrize(
    ("wanted", "status", "part"),
    [
        ("bytes=0-3", 206, slice(0, 4)),
        ("bytes=1000-", 206, slice(1000, 1024)),
        ("bytes=-24", 206, slice(1000, 1024)),
        ("bytes=0-99999", 206, slice(0, 1024)),
        ("bytes=-", 200, slice(0, 1024)),
        ("lines=1-2", 200, slice(0, 1024)),
        ("bytes=1024-", 416, slice(0, 0)),
        ("bytes=5-2", 416, slice(0, 0)),
    ],
)
def test_parts_of_a_file(server: LocalServer, wanted: str, status: int, part: slice) -> None:
    found, body, _ = ask(server, f"/{server.token}/file", Range=wanted)
    assert (found, body) == (status, (bytes(range(256)) * 4)[part])


def test_what_a_route_raises_is_a_sentence(server: LocalServer) -> None:
    assert ask(server, f"/{server.token}/refuse")[:2] == (400, b'{"error": "say what to do."}')
    status, body, _ = ask(server, f"/{server.token}/defect")
    assert status == 500
    assert b"secret detail" not in body
    assert ask(server, f"/{server.token}/gone")[0] == 404
    assert ask(server, f"/{server.token}/?{'&'.join(f'a{i}=1' for i in range(99))}")[0] == 400


def test_a_taken_port_is_said(server: LocalServer) -> None:
    with pytest.raises(ParamsError, match=f"cannot listen on 127.0.0.1 port {server.port}"):
        LocalServer({}, port=server.port)
