"""What a request that no page of ours would send can reach: nothing."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason='no Gradio: pip install "smolvlm[ui]"')

from helpers_ui_server import MEDIA, Server

SECRET = "a file that nobody uploaded"


# Writes down every address that the program connects to and every name that it looks up, as Python itself reports them.
WATCHED = """
import sys
from pathlib import Path
seen = Path(sys.argv.pop(1))
def watch(event, args):
    if event in ("socket.connect", "socket.getaddrinfo"):
        with seen.open("a") as file:
            print(event, args[1:] if event == "socket.connect" else args[:1], file=file)
sys.addaudithook(watch)
from smolvlm.cli.main import main
sys.exit(main())
"""


@pytest.fixture(scope="module")
def connections(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched") / "connections.txt"


@pytest.fixture(scope="module")
def page(connections: Path) -> Iterator[Server]:
    server = Server("--model", "nano", "--max-upload-mb", "1", launch=("-c", WATCHED, str(connections)))
    yield server
    server.close()


@pytest.fixture(scope="module")
def config(page: Server) -> dict[str, Any]:
    return httpx.get(f"{page.address}/config").json()


def submit(page: Server, config: dict[str, Any], path: str, **more: Any) -> str:
    """Ask as the page does, with `path` as the upload; all that the server says, as text."""
    function = next(d for d in config["dependencies"] if any(trigger == "submit" for _, trigger in map(tuple, d["targets"])))
    components = {c["id"]: c for c in config["components"]}
    data = [components[i]["props"].get("value") for i in function["inputs"]]
    data[0] = {"text": "What does the sign say?", "files": [{"path": path, "meta": {"_type": "gradio.FileData"}, **more}]}
    data[1] = "en"
    body = {"data": data, "fn_index": function["id"], "session_hash": "forged", "trigger_id": None, "event_data": None}
    joined = httpx.post(f"{page.address}/gradio_api/queue/join", json=body, timeout=20)
    if joined.status_code != 200:
        return joined.text
    said = ""
    with httpx.stream("GET", f"{page.address}/gradio_api/queue/data?session_hash=forged", timeout=20) as stream:
        for line in stream.iter_lines():
            said += line
            if "process_completed" in line or "close_stream" in line:
                break
    return said


def test_an_upload_is_answered(page: Server, config: dict[str, Any]) -> None:
    """That the requests below are refused for what they name, and for nothing else."""
    with (MEDIA / "sign.png").open("rb") as file:
        stored = httpx.post(f"{page.address}/gradio_api/upload", files={"files": file}).json()[0]
    assert "MILK" in submit(page, config, stored)


def test_a_file_of_this_machine_is_not_read(page: Server, config: dict[str, Any], tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text(SECRET)
    said = submit(page, config, str(secret))
    assert '"success":false' in said
    assert "process_generating" not in said
    for path in (str(secret), "/etc/passwd", "/proc/self/environ", "../../../../etc/passwd"):
        got = httpx.get(f"{page.address}/gradio_api/file={path}")
        assert got.status_code in (403, 404), path


def test_an_address_is_not_fetched(page: Server, config: dict[str, Any]) -> None:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(404)
            self.end_headers()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/picture.png"
        said = submit(page, config, address)
        assert "addresses are not fetched here" in said
        submit(page, config, "nothing.png", url=address)
        server.shutdown()
    assert asked == []


def test_a_large_upload_is_refused(page: Server) -> None:
    got = httpx.post(f"{page.address}/gradio_api/upload", files={"files": ("big.mp4", b"\0" * 1_100_000)})
    assert got.status_code == 413


def test_every_answer_keeps_the_page_to_itself(page: Server) -> None:
    for path in ("/", "/config", "/nowhere"):
        policy = httpx.get(page.address + path).headers["content-security-policy"]
        assert "default-src 'self'" in policy
        assert "http:" not in policy


def test_no_page_of_another_site_may_ask(page: Server) -> None:
    got = httpx.get(f"{page.address}/config", headers={"Origin": "https://evil.example"})
    assert got.headers.get("access-control-allow-origin") not in ("*", "https://evil.example")


def test_there_is_nothing_of_gradio_that_we_do_not_use(config: dict[str, Any]) -> None:
    assert config["analytics_enabled"] is False
    assert not config.get("is_space")
    assert not [link for link in config.get("footer_links", ()) if link]


def test_a_question_of_megabytes_is_refused(page: Server) -> None:
    got = httpx.post(f"{page.address}/gradio_api/queue/join", content=b'{"data": ["' + b"x" * 5 * 1024**2 + b'"]}')
    assert got.status_code == 413


def test_the_program_connects_to_nobody(page: Server, connections: Path) -> None:
    """In all tests before this one: no address but this machine's, and no name looked up but that of its own."""
    assert httpx.get(page.address).status_code == 200
    said = connections.read_text().splitlines()
    assert any(line.startswith("socket.getaddrinfo ('127.0.0.1',") for line in said), "the watch does not work"
    assert [line for line in said if "'127.0.0.1'" not in line] == []


def test_names_and_pages_of_other_sites_are_refused(page: Server, config: dict[str, Any]) -> None:
    """A name that was made to point at this machine, a form's upload, the queue, and a WebSocket of another site."""
    with httpx.Client(base_url=page.address) as client:
        for path in ("/", "/config", "/gradio_api/queue/data?session_hash=x", "/gradio_api/file=/etc/passwd", "/nowhere"):
            assert client.get(path, headers={"Host": "evil.example"}).status_code == 421
        for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
            upload = client.post("/gradio_api/upload", files={"files": b"x"}, headers=headers)
            assert upload.status_code == 403
            assert client.post("/gradio_api/queue/join", json={}, headers=headers).status_code == 403
        assert "--allowed-hosts" in client.get("/", headers={"Host": "evil.example"}).json()["detail"]
        socket_headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
            "Origin": "http://evil.example",
        }
        assert client.get("/gradio_api/queue/join", headers=socket_headers).status_code in (403, 404)
        own = client.post("/gradio_api/upload", files={"files": b"x"}, headers={"Origin": page.address})
        assert own.status_code == 200
