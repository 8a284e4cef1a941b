"""Web pages that must not use the server of whoever looks at them, and those that may."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from helpers_serve import MEDIA, Server, serving, text
from smolvlm.errors import ParamsError
from smolvlm.listening import Callers
from smolvlm.listening.callers import refused_page

CHAT = "/v1/chat/completions"
ASK = {"model": "nano", "messages": text("Hi."), "max_tokens": 1}
FRIEND = "http://app.example:3000"


def status(method: str, host: str | None = "localhost:8000", *, rules: Callers | None = None, **headers: str) -> int:
    """What a request is answered with by the rules of a server on 127.0.0.1; 200 is none of their refusals."""
    given = [(name.replace("_", "-").encode(), value.encode("latin-1")) for name, value in headers.items()]
    if host is not None:
        given.append((b"host", host.encode("latin-1")))
    refusal = (rules or Callers("127.0.0.1")).refusal(method, given)
    return 200 if refusal is None else refusal.status


ANSWERED = [
    "localhost",
    "LOCALHOST:8000",
    "localhost.",
    "127.0.0.1",
    "127.0.0.1:8000",
    "127.8.8.8",
    "[::1]",
    "[::1]:8000",
    "192.168.1.20:8000",
    "10.0.0.1",
    "[fe80::1]:8000",
    "",
    None,
]
REFUSED = [
    "evil.example",
    "evil.example:8000",
    "localhost.evil.example",
    "127.0.0.1.evil.example",
    "localhost@evil.example",
    "127.0.0.1.nip.io",
    "evil.example/localhost",
    "localhost:8000:8000",
    "localhost evil.example",
    "notlocalhost",
    "[::1]evil.example",
    "evil.example:localhost",
    "xn--lcalhost-7fg",
    "0x7f.1",
    "lócalhost",
    "host.docker.internal",
]


@pytest.mark.parametrize("host", ANSWERED)
def test_this_machine_and_addresses_are_answered(host: str | None) -> None:
    assert status("GET", host) == 200


@pytest.mark.parametrize("host", REFUSED)
def test_other_names_are_not(host: str) -> None:
    assert status("GET", host) == 421
    assert status("GET", host, rules=Callers("127.0.0.1", ["friend.example"])) == 421


def test_names_that_are_allowed() -> None:
    rules = Callers("box.lan", ["api.example.org", "*.chat.example"])
    for host in ("box.lan:80", "API.example.org", "api.example.org.", "a.chat.example", "a.b.chat.example:443"):
        assert status("GET", host, rules=rules) == 200, host
    for host in ("example.org", "x.api.example.org", "chat.example", "evilchat.example", "box.lan.evil.example"):
        assert status("GET", host, rules=rules) == 421, host
    assert status("GET", "any.thing", rules=Callers("::", ["*"])) == 200


def test_origins() -> None:
    """Reading is free: without CORS headers no page sees the answer. Changing is for the server's own page."""
    for origin in (
        "http://evil.example",
        "https://evil.example:8000",
        "null",
        "http://localhost.evil.example",
        "file://",
        "http://203.0.113.7",
        "http://127.0.0.1.evil.example",
        "http://localhost@evil.example",
        "",
        "localhost",
        "chrome-extension://abc",
        "http://[::2]",
        "http://evil.example, http://localhost:8000",
    ):
        assert status("POST", origin=origin) == 403, origin
        assert status("DELETE", origin=origin) == 403, origin
        assert status("GET", origin=origin) == 200, origin
    for origin in ("http://localhost:8000", "https://localhost:8000", "http://127.0.0.1:8000", "http://localhost:3000"):
        assert status("POST", origin=origin) == 200, origin
    assert status("POST", "192.168.1.20:8000", origin="http://192.168.1.20:8000") == 200
    assert status("POST", "192.168.1.20:8000", origin="http://192.168.1.21:8000") == 403
    assert status("POST", sec_fetch_site="cross-site") == 403
    assert status("POST", sec_fetch_site="same-origin") == 200
    assert status("POST") == 200  # no browser


def test_origins_that_are_allowed() -> None:
    rules = Callers("127.0.0.1", ["chat.example.org"], [FRIEND, "chrome-extension://abc"])
    assert status("POST", origin=FRIEND, sec_fetch_site="cross-site", rules=rules) == 200
    assert status("POST", origin="chrome-extension://abc", rules=rules) == 200
    assert status("POST", origin="https://chat.example.org", rules=rules) == 200  # a proxy wrote another Host
    for origin in ("https://app.example:3000", "http://app.example", "http://app.example:30000", "http://xapp.example:3000"):
        assert status("POST", origin=origin, rules=rules) == 403, origin
    assert status("POST", origin="null", rules=Callers("::1", [], ["*"])) == 200
    assert status("POST", origin="http://evil.example", rules=Callers("::1", ["*"])) == 403  # any host, not any page


@pytest.mark.parametrize("host", ["http://a.example", "a.example:80", "a b", "*.*", "a.example/", ""])
def test_what_is_no_host(host: str) -> None:
    with pytest.raises(ParamsError, match="allowed_hosts"):
        Callers("::1", [host])


@pytest.mark.parametrize("origin", ["a.example", "http://a.example/", "http://", "null", "http://a b"])
def test_what_is_no_origin(origin: str) -> None:
    with pytest.raises(ParamsError, match="cors_origin"):
        Callers("::1", [], [origin])


@pytest.fixture(scope="module")
def friendly(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("friendly") / "log"
    flags = ("--cors-origin", FRIEND, "--cors-origin", "https://other.example", "--allowed-hosts", "api.example.org")
    with serving(log, *flags) as running:
        yield running


def test_a_name_of_another_site_is_told_what_to_do(server: Server) -> None:
    for path in ("/v1/models", "/health", "/", "/docs", "/nowhere"):
        answer = httpx.get(server.url + path, headers={"Host": "evil.example"})
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (421, "host_not_allowed")
        assert "--allowed-hosts evil.example" in error["message"]
    assert httpx.post(server.url + CHAT, json=ASK, headers={"Host": "evil.example"}).status_code == 421


def test_a_page_of_another_site_cannot_upload_or_ask(server: Server) -> None:
    """Both need no preflight: a form's upload, and JSON that says it is plain text."""
    before = httpx.get(f"{server.url}/v1/files").json()
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        upload = httpx.post(f"{server.url}/v1/files", files={"file": (MEDIA / "sign.png").open("rb")}, headers=headers)
        assert (upload.status_code, upload.json()["error"]["code"]) == (403, "origin_not_allowed")
        assert httpx.post(server.url + CHAT, json=ASK, headers=headers).status_code == 403
        assert "access-control-allow-origin" not in upload.headers
    assert httpx.get(f"{server.url}/v1/files").json() == before


def test_a_preflight_without_cors(server: Server) -> None:
    for origin, flag in ((FRIEND, FRIEND), ("http://localhost:3000", "http://localhost:3000"), ("null", '"*"'), ("file://", '"*"')):
        for path in (CHAT, "/v1/files", "/v1/models", "/nowhere"):
            asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type"}
            answer = httpx.options(server.url + path, headers=asked)
            error = answer.json()["error"]
            assert (answer.status_code, error["code"], error["type"]) == (403, "origin_not_allowed", "invalid_request_error")
            assert f"--cors-origin {flag}." in error["message"]
            assert "access-control-allow-origin" not in answer.headers
    assert httpx.options(server.url + CHAT).status_code == 405  # no browser


def test_the_flag_that_a_refusal_names_is_one_that_is_taken() -> None:
    for origin in (FRIEND, "null", "file://", "chrome-extension://abc", "http://[::1]:3", "https://x.example:99999999", ""):
        flag = refused_page(origin).sentence.rpartition("--cors-origin ")[2].removesuffix(".").strip('"')
        Callers("::1", [], [flag])


@pytest.mark.parametrize("origin", [FRIEND, "https://other.example"])
@pytest.mark.slow
def test_a_browsers_client(friendly: Server, origin: str) -> None:
    """As a browser goes about it: the preflight, then the request; errors are readable too."""
    wanted = {
        "Origin": origin,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
    }
    preflight = httpx.options(friendly.url + CHAT, headers=wanted)
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == origin
    assert "POST" in preflight.headers["access-control-allow-methods"]
    allowed = set(re.split(r",\s*", preflight.headers["access-control-allow-headers"].lower()))
    assert {"authorization", "content-type", "x-stainless-os"} <= allowed
    headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site", "Authorization": "Bearer none"}
    for body, code in ((ASK, 200), (ASK | {"model": "gpt-4"}, 404)):
        answer = httpx.post(friendly.url + CHAT, json=body, headers=headers)
        assert answer.status_code == code
        assert answer.headers["access-control-allow-origin"] == origin


def test_another_page_is_still_refused(friendly: Server) -> None:
    evil = {"Origin": "http://evil.example"}
    preflight = httpx.options(friendly.url + CHAT, headers=evil | {"Access-Control-Request-Method": "POST"})
    assert (preflight.status_code, preflight.json()["error"]["code"]) == (403, "origin_not_allowed")
    assert "--cors-origin http://evil.example." in preflight.json()["error"]["message"]
    method = {"Origin": FRIEND, "Access-Control-Request-Method": "PATCH"}
    unknown = httpx.options(friendly.url + CHAT, headers=method)
    assert (unknown.status_code, unknown.json()["error"]["code"]) == (405, "method_not_allowed")
    assert "access-control-allow-origin" not in preflight.headers
    answer = httpx.post(friendly.url + CHAT, json=ASK, headers=evil)
    assert answer.status_code == 403
    assert "access-control-allow-origin" not in answer.headers
    assert httpx.get(f"{friendly.url}/v1/models", headers={"Host": "api.example.org"}).status_code == 200
