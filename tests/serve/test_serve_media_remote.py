"""Addresses in requests: which are refused before a name is asked for, which at the address, which on the way.

A server on 127.0.0.1 plays the internet (`allow_addresses` lets the gate reach it); another on 127.0.0.2 plays the inside
and must never be asked anything.
"""

from __future__ import annotations

import dataclasses
import http.server
import os
import shutil
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers_media import photo
from helpers_serve_media import Loop, bad_server, running_gate
from smolvlm.errors import ParamsError, SmolVLMError, SourceError
from smolvlm.media import split_image
from smolvlm.media.limits import STRANGERS
from smolvlm.media.sandbox.gate import MediaGate, MediaLimits, MediaUnavailableError, RemotePolicy
from smolvlm.prompt.messages import ImagePart

REDIRECTS = {
    "/hop": "http://good.example:{port}/photo.png",
    "/relative": "photo.png",
    "/hop3": "/hop2",
    "/hop2": "/hop1",
    "/hop1": "/photo.png",
    "/hop4": "/hop3",
    "/loop": "/loop",
    "/to_private": "http://inside.example:{port}/secret",
    "/to_loopback": "http://127.0.0.2:{port}/secret",
    "/to_mapped": "http://[::ffff:127.0.0.2]:{port}/secret",
    "/to_metadata": "http://169.254.169.254/latest/meta-data",
    "/to_decimal": "http://2130706434:{port}/secret",
    "/to_file": "file:///etc/passwd",
    "/to_ftp": "ftp://good.example/x",
    "/to_data": "data:text/plain,hello",
    "/to_userinfo": "http://good.example@127.0.0.2:{port}/secret",
    "/to_backslash": "http://127.0.0.2:{port}\\@good.example/",
    "/to_scheme_relative": "//127.0.0.2:{port}/secret",
    "/to_port": "http://good.example:22/",
    "/to_unlisted": "http://other.example:{port}/photo.png",
    "/to_junk": "http://[",
    "/to_nothing": "",
}


class Names:
    """A resolver with the answers of an attacker. `asked` counts the questions."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __call__(self, host: str, _port: int) -> list[str]:
        self.asked.append(host)
        answers = {
            "good.example": ["127.0.0.1"],
            "www.sub.example": ["127.0.0.1"],
            "inside.example": ["127.0.0.2"],
            "mixed.example": ["127.0.0.1", "127.0.0.2"],
            "mixed6.example": ["127.0.0.1", "::ffff:10.0.0.1"],
            "metadata.example": ["169.254.169.254"],
            "zone.example": ["fe80::1%eth0"],
            "none.example": [],
            "garbage.example": ["not an address"],
            "nat.example": ["64:ff9b::7f00:2"],
        }
        if host == "rebind.example":  # allowed at the first question, inside at every later one
            return ["127.0.0.1"] if self.asked.count(host) == 1 else ["127.0.0.2"]
        if host == "slow.example":
            time.sleep(4)
        if host == "unknown.example":
            raise OSError("no such name")
        return answers.get(host, [host])  # an address is its own answer


NAMES = Names()
LIMITS = MediaLimits(source=dataclasses.replace(STRANGERS, max_download_bytes=100_000, timeout_s=1.0, max_download_s=2.0), workers=1)


@pytest.fixture(scope="module")
def inside() -> Iterator[list[tuple[str, str]]]:
    """What the inside was asked: nothing, ever. It listens at the port that the internet has."""
    with bad_server("127.0.0.2") as (_, seen):
        yield seen


@pytest.fixture(scope="module")
def web() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    with bad_server("127.0.0.1", REDIRECTS) as found:
        yield found


@pytest.fixture(scope="module")
def gate(web: tuple[int, Any]) -> Iterator[tuple[Loop, MediaGate]]:
    hosts = (
        "good.example",
        "*.sub.example",
        "rebind.example",
        "mixed.example",
        "mixed6.example",
        "metadata.example",
        "inside.example",
        "zone.example",
        "none.example",
        "garbage.example",
        "nat.example",
        "slow.example",
        "unknown.example",
    )
    policy = RemotePolicy(hosts=hosts, ports=(80, web[0]), allow_addresses=("127.0.0.1",))
    with running_gate(LIMITS, policy, resolver=NAMES) as found:
        yield found


@pytest.fixture(scope="module")
def open_gate(web: tuple[int, Any]) -> Iterator[tuple[Loop, MediaGate]]:
    """Any public host, and the system's own resolver: the widest policy there is."""
    with running_gate(LIMITS, RemotePolicy(hosts=("*",), ports=(80, 443, web[0]))) as found:
        yield found


@pytest.fixture(autouse=True)
def _nothing_is_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert not list(folder.iterdir()), "a download left its temporary file behind"


def refused(gate: tuple[Loop, MediaGate], url: str) -> str:
    """The sentence with which a URL is refused."""
    loop, door = gate
    begin = time.monotonic()
    with pytest.raises(SmolVLMError) as caught:
        loop(door.open(ImagePart(url)))
    assert time.monotonic() - begin < 4, "refused in time"
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert "Traceback" not in sentence
    assert len(sentence) < 400
    assert sentence.endswith(".")
    return sentence


@pytest.mark.parametrize("path", ["/photo.png", "/hop", "/relative", "/hop3", "/wrong_type", "/photo.png?a=b#c"])
def test_what_is_allowed_comes_through(gate: tuple[Loop, MediaGate], web: tuple[int, Any], path: str) -> None:
    loop, door = gate
    got = loop(door.open(ImagePart(f"http://good.example:{web[0]}{path}")))
    assert np.array_equal(got.tiles, split_image(photo(30, 20), door.config).tiles)
    assert web[1][-1][1] == f"good.example:{web[0]}", "the server sees the name that it was asked for"


@pytest.mark.parametrize("host", ["www.sub.example", "WWW.Sub.Example", "good.example.", "GOOD.example"])
def test_spellings_of_an_allowed_host(gate: tuple[Loop, MediaGate], web: tuple[int, Any], host: str) -> None:
    loop, door = gate
    assert len(loop(door.open(ImagePart(f"http://{host}:{web[0]}/photo.png"))).tiles)


REFUSED_BY_SPELLING = {
    "file": ("file:///etc/passwd", "not opened"),
    "file_in_capitals": ("FILE:///etc/passwd", "not opened"),
    "path": ("/etc/passwd", "not opened"),
    "relative_path": ("../../etc/passwd", "not opened"),
    "windows_path": ("C:\\secret.png", "not opened"),
    "unc_path": ("\\\\host\\share\\x.png", "not opened"),
    "empty": ("", "not opened"),
    "ftp": ("ftp://good.example/x.png", "not opened"),
    "gopher": ("gopher://good.example:70/_x", "not opened"),
    "javascript": ("javascript:alert(1)", "not opened"),
    "concat_protocol": ("concat:/etc/passwd|/etc/hosts", "not opened"),
    "file_id": ("file-abc123", "not opened"),
    "one_slash": ("http:/127.0.0.2/x.png", "not opened"),
    "no_slash": ("http:127.0.0.2", "not opened"),
    "scheme_relative": ("//127.0.0.2/x.png", "not opened"),
    "leading_space": (" http://good.example/x.png", "not opened"),
    "no_host": ("http:///x.png", "names no host"),
    "userinfo": ("http://user:pw@127.0.0.2/x.png", "before '@'"),
    "userinfo_like_a_host": ("http://good.example@127.0.0.2/x.png", "before '@'"),
    "userinfo_with_port": ("http://good.example:80@127.0.0.2/x.png", "before '@'"),
    "escaped_userinfo": ("http://good.example%40127.0.0.2/x.png", "plain host name"),
    "backslash_at": ("http://good.example\\@127.0.0.2/x.png", "backslash"),
    "backslash_path": ("http://127.0.0.2\\.good.example/x.png", "backslash"),
    "fragment_before_host": ("http://127.0.0.2#@good.example/", "not on this server's list"),
    "query_before_host": ("http://127.0.0.2?@good.example/", "not on this server's list"),
    "line_break": ("http://good.example/x\r\nHost: inside.example", "control character"),
    "tab_in_host": ("http://good.exam\tple/x.png", "control character"),
    "null_byte": ("http://good.example/\0x.png", "control character"),
    "decimal_address": ("http://2130706434/x.png", "plain host name"),
    "octal_address": ("http://0177.0.0.2/x.png", "plain host name|not on"),
    "octal_number": ("http://017700000002/x.png", "plain host name"),
    "hex_address": ("http://0x7f000002/x.png", "plain host name"),
    "hex_parts": ("http://0x7f.0x0.0x0.0x2/x.png", "plain host name"),
    "short_address": ("http://127.2/x.png", "plain host name"),
    "mixed_address": ("http://0x7f.1/x.png", "plain host name"),
    "address_with_dot": ("http://127.0.0.2./x.png", "plain host name"),
    "escaped_dot": ("http://127%2e0.0.2/x.png", "plain host name"),
    "unicode_dots": ("http://127\u30020\u30020\u30022/x.png", "plain host name"),
    "circled_digits": ("http://\u2461\u2461.\u24ea.\u24ea.\u2461/x.png", "plain host name|not a valid URL"),
    "circled_letters": ("http://\u24dbocalhost/x.png", "plain host name|not a valid URL"),
    "soft_hyphen": ("http://local\u00adhost/x.png", "control character|plain host name"),
    "fullwidth_slash": ("http://127.0.0.2\uff0f.good.example/", "not a valid URL|plain host name"),
    "unlisted_host": ("http://other.example/x.png", "not on this server's list"),
    "list_as_suffix": ("http://evilgood.example/x.png", "not on this server's list"),
    "list_as_prefix": ("http://good.example.evil.example/x.png", "not on this server's list"),
    "wildcard_itself": ("http://sub.example/x.png", "not on this server's list"),
    "wildcard_trick": ("http://evilsub.example/x.png", "not on this server's list"),
    "ssh_port": ("http://good.example:22/x.png", "port 22 is not allowed"),
    "redis_port": ("http://good.example:6379/x.png", "port 6379 is not allowed"),
    "port_zero": ("http://good.example:0/x.png", "names no host"),
    "port_beyond": ("http://good.example:99999/x.png", "not a valid URL"),
    "port_in_words": ("http://good.example:80x/x.png", "not a valid URL"),
    "broken_brackets": ("http://[::1/x.png", "not a valid URL"),
    "zone": ("http://[fe80::1%25eth0]/x.png", "plain host name"),
    "long_host": ("http://" + "a" * 5000 + ".example/x.png", "plain host name"),
}


@pytest.mark.parametrize("name", REFUSED_BY_SPELLING)
def test_refused_before_a_name_is_asked_for(gate: tuple[Loop, MediaGate], web: tuple[int, Any], name: str) -> None:
    url, expected = REFUSED_BY_SPELLING[name]
    before = (len(NAMES.asked), len(web[1]))
    sentence = refused(gate, url)
    assert any(part in sentence for part in expected.split("|")), sentence
    assert (len(NAMES.asked), len(web[1])) == before


INSIDE_ADDRESSES = {
    "loopback": "127.0.0.1",
    "other_loopback": "127.8.9.1",
    "this_host": "0.0.0.0",
    "private_10": "10.0.0.8",
    "private_172": "172.31.255.1",
    "private_192": "192.168.1.1",
    "metadata": "169.254.169.254",
    "metadata_of_azure": "168.63.129.16",
    "metadata_of_alibaba": "100.100.100.200",
    "carrier_nat": "100.64.0.1",
    "multicast": "224.0.0.1",
    "broadcast": "255.255.255.255",
    "reserved": "240.0.0.1",
    "benchmarks": "198.18.0.1",
    "loopback_6": "[::1]",
    "unspecified_6": "[::]",
    "mapped": "[::ffff:127.0.0.1]",
    "mapped_in_hex": "[::ffff:7f00:1]",
    "mapped_private": "[::ffff:10.0.0.1]",
    "compatible": "[::127.0.0.1]",
    "translated": "[::ffff:0:127.0.0.1]",
    "nat64": "[64:ff9b::7f00:1]",
    "nat64_local": "[64:ff9b:1::7f00:1]",
    "six_to_four": "[2002:7f00:1::]",
    "teredo": "[2001:0:4136:e378:8000:63bf:80ff:fffe]",
    "link_local_6": "[fe80::1]",
    "unique_local": "[fd00:ec2::254]",
    "site_local": "[fec0::1]",
    "multicast_6": "[ff02::1]",
    "unassigned": "[5f00::1]",
    "localhost": "localhost",
    "localhost_dot": "localhost.",
    "localhost_capitals": "LOCALHOST",
}


@pytest.mark.parametrize("name", INSIDE_ADDRESSES)
def test_inside_addresses_are_refused(open_gate: tuple[Loop, MediaGate], web: tuple[int, Any], name: str) -> None:
    """Every host is allowed here, so that the address alone decides; the server on 127.0.0.1 would answer."""
    before = len(web[1])
    assert "private network" in refused(open_gate, f"http://{INSIDE_ADDRESSES[name]}:{web[0]}/photo.png")
    assert len(web[1]) == before


@pytest.mark.parametrize("name", ["inside", "mixed", "mixed6", "metadata", "zone", "garbage", "nat"])
def test_names_that_lead_inside(gate: tuple[Loop, MediaGate], web: tuple[int, Any], name: str) -> None:
    before = len(web[1])
    assert "private network" in refused(gate, f"http://{name}.example:{web[0]}/secret")
    assert len(web[1]) == before


def test_dns_rebinding(gate: tuple[Loop, MediaGate], web: tuple[int, Any], inside: list[Any]) -> None:
    """The name is asked for once a hop, and the answer that was checked is the one connected to."""
    NAMES.asked.clear()
    loop, door = gate
    url = f"http://rebind.example:{web[0]}/photo.png"
    assert len(loop(door.open(ImagePart(url))).tiles)
    assert NAMES.asked == ["rebind.example"]
    assert "private network" in refused(gate, url), "the second request is a question of its own"
    assert not inside


@pytest.mark.parametrize(
    ("name", "expected"), [("none", "has no address"), ("unknown", "is not known"), ("slow", "not finished after 2 s")]
)
def test_names_that_fail(gate: tuple[Loop, MediaGate], web: tuple[int, Any], name: str, expected: str) -> None:
    assert expected in refused(gate, f"http://{name}.example:{web[0]}/x.png")


BAD_ANSWERS = {
    "to_private": "private network",
    "to_loopback": "not on this server's list",
    "to_mapped": "not on this server's list",
    "to_metadata": "not on this server's list",
    "to_decimal": "plain host name",
    "to_file": "file:// addresses are not",
    "to_ftp": "ftp:// addresses are not",
    "to_data": "download failed",
    "to_userinfo": "before '@'",
    "to_backslash": "backslash",
    "to_scheme_relative": "not on this server's list",
    "to_port": "port 22 is not allowed",
    "to_unlisted": "not on this server's list",
    "to_junk": "not a valid URL",
    "to_nothing": "more than 3 redirects",
    "loop": "more than 3 redirects",
    "hop4": "more than 3 redirects",
    "missing": "answered 404",
    "empty": "empty file",
    "lies": "limit of 100000 bytes",
    "digits": "limit of 100000 bytes|download failed",
    "short": "download failed",
    "endless": "limit of 100000 bytes",
    "gzip": "compressed transfer",
    "slow_body": "not finished after 2 s",
    "slow_headers": "not finished after 2 s",
    "silent": "no answer within 1 s",
    "continue_flood": "not finished after 2 s",
    "huge_header": "download failed",
    "many_headers": "download failed",
    "bad_chunks": "download failed",
    "no_http": "download failed",
    "two_lengths": "download failed",
    "html": "not a picture",
}


@pytest.mark.parametrize("path", BAD_ANSWERS)
def test_bad_answers(gate: tuple[Loop, MediaGate], web: tuple[int, Any], inside: list[Any], path: str) -> None:
    sentence = refused(gate, f"http://good.example:{web[0]}/{path}")
    assert any(part in sentence for part in BAD_ANSWERS[path].split("|")), sentence
    assert not inside
    loop, door = gate
    assert len(loop(door.open(ImagePart(f"http://good.example:{web[0]}/photo.png"))).tiles), "the gate goes on"


def test_redirects_of_the_open_gate_stay_outside(web: tuple[int, Any], inside: list[Any]) -> None:
    """With every host allowed, what a redirect leads to is still checked by its address."""
    policy = RemotePolicy(hosts=("*",), ports=(80, web[0]), allow_addresses=("127.0.0.1",))
    with running_gate(LIMITS, policy, resolver=NAMES) as found:
        for path in ("to_private", "to_loopback", "to_mapped", "to_metadata", "to_scheme_relative"):
            assert "private network" in refused(found, f"http://good.example:{web[0]}/{path}"), path
    assert not inside


def test_remote_media_are_off_by_default(web: tuple[int, Any]) -> None:
    with running_gate(LIMITS) as found:
        for url in ("http://8.8.8.8/x.png", "https://good.example/x.png", f"http://127.0.0.1:{web[0]}/photo.png"):
            assert "addresses are not fetched here" in refused(found, url)


def test_only_https(web: tuple[int, Any]) -> None:
    policy = RemotePolicy(hosts=("good.example",), schemes=("https",), ports=(web[0],), allow_addresses=("127.0.0.1",))
    with running_gate(LIMITS, policy, resolver=NAMES) as found:
        assert "http:// is not allowed here" in refused(found, f"http://good.example:{web[0]}/photo.png")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="the openssl command makes the certificate")
def test_the_certificate_is_checked_against_the_name(tmp_path: Path) -> None:
    """The connection goes to an address, the name is still the one that TLS hears and that the certificate must have."""
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "rsa:2048",
            "-nodes",
            "-keyout",
            key,
            "-out",
            certificate,
            "-days",
            "2",
            "-subj",
            "/CN=good.example",
            "-addext",
            "subjectAltName=DNS:good.example",
        ],
        check=True,
        capture_output=True,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    heard: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: heard.append(name)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as httpd:
        httpd.socket = context.wrap_socket(httpd.socket, server_side=True, do_handshake_on_connect=False)
        httpd.handle_error = lambda *_: None  # type: ignore[method-assign]
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        port = httpd.server_address[1]
        policy = RemotePolicy(hosts=("good.example",), ports=(port,), allow_addresses=("127.0.0.1",))
        with running_gate(LIMITS, policy, resolver=NAMES) as found:
            assert "certificate verify failed" in refused(found, f"https://good.example.:{port}/photo.png").lower()
        httpd.shutdown()
    assert heard == ["good.example"]


def test_a_full_disk_is_the_servers_trouble(gate: tuple[Loop, MediaGate], web: tuple[int, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "mkstemp", lambda **_: (_open_full(), str(tempfile.gettempdir()) + "/full"))
    loop, door = gate
    with pytest.raises(MediaUnavailableError, match="no room for a temporary file"):
        loop(door.open(ImagePart(f"http://good.example:{web[0]}/photo.png")))


def _open_full() -> int:
    return os.open("/dev/full", os.O_WRONLY)  # every write to it says that the disk is full


def test_a_request_that_is_given_up_stops_its_download(gate: tuple[Loop, MediaGate], web: tuple[int, Any]) -> None:
    loop, door = gate
    running = loop.begin(door.open(ImagePart(f"http://good.example:{web[0]}/slow_body")))
    while not web[1] or web[1][-1][0] != "/slow_body":
        time.sleep(0.01)
    folder = Path(tempfile.gettempdir())
    assert len(list(folder.iterdir())) == 1
    running.cancel()
    deadline = time.monotonic() + 1
    while list(folder.iterdir()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"hosts": ("http://a.example",)}, "no host name"),
        ({"hosts": ("a b",)}, "no host name"),
        ({"hosts": ("127.1",)}, "no host name"),
        ({"hosts": ("*.*.example",)}, "no host name"),
        ({"schemes": ("file",)}, "only http and https"),
        ({"allow_addresses": ("localhost",)}, "no address or network"),
    ],
)
def test_policies_that_make_no_sense(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        RemotePolicy(**fields)


def test_errors_are_the_requests(gate: tuple[Loop, MediaGate], web: tuple[int, Any]) -> None:
    """A server tells 4xx from 5xx by the class."""
    loop, door = gate
    with pytest.raises(SourceError):
        loop(door.open(ImagePart(f"http://good.example:{web[0]}/missing")))
