"""The space for uploads: no key can fill it for the others, and limits hold while uploads come in, at the same time too."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from helpers_neighbour import two_keys
from helpers_serve import Server
from smolvlm.serve.api.files import FileRecord, FileStore
from smolvlm.serve.api.upload_quota import UploadQuota
from smolvlm.serve.errors import ServeError

SPACE = 1_000_000


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str, str]]:
    folder = tmp_path_factory.mktemp("quota")
    with two_keys(folder, "--max-files-bytes", str(SPACE), "--files-folder", str(folder / "files")) as found:
        yield found


def upload(server: Server, key: str, size: int) -> httpx.Response:
    headers = {"Authorization": f"Bearer {key}"}
    return httpx.post(f"{server.url}/v1/files", headers=headers, files={"file": ("x.png", bytes(size))}, timeout=30)


def refused(reply: httpx.Response) -> str:
    assert reply.status_code == 429, reply.text
    assert reply.headers["retry-after"]
    error = reply.json()["error"]
    assert error["code"] == "storage_full"
    return str(error["message"])


def clear(server: Server, *keys: str) -> None:
    for key in keys:
        headers = {"Authorization": f"Bearer {key}"}
        for each in httpx.get(f"{server.url}/v1/files", headers=headers).json()["data"]:
            httpx.delete(f"{server.url}/v1/files/{each['id']}", headers=headers)


@pytest.mark.slow
def test_one_key_cannot_fill_the_space(pair: tuple[Server, str, str]) -> None:
    server, attacker, neighbour = pair
    accepted = 0
    while (reply := upload(server, attacker, 90_000)).status_code == 200:
        accepted += 1
    assert accepted == 5, "half of what the others leave"
    assert "it may keep 500000" in refused(reply)
    assert upload(server, neighbour, 200_000).status_code == 200, "a newcomer has room"
    assert "it may keep 400000" in refused(upload(server, attacker, 1000)), "and what it takes is no longer the other's"
    clear(server, attacker, neighbour)
    assert upload(server, attacker, 400_000).status_code == 200
    clear(server, attacker, neighbour)


@contextlib.contextmanager
def open_upload(server: Server, key: str, *, promised: int | None, sent: int) -> Iterator[socket.socket]:
    """An upload that has sent `sent` bytes of its file and waits; with a Content-Length, or in chunks."""
    start = b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
    length = f"Content-Length: {promised}" if promised is not None else "Transfer-Encoding: chunked"
    head = (
        f"POST /v1/files HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {key}\r\n{length}\r\n"
        "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    )
    body = start + bytes(sent)
    if promised is None:
        body = f"{len(body):x}\r\n".encode() + body + b"\r\n"
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(head.encode())
        with contextlib.suppress(OSError):  # it may be refused in the middle
            connection.sendall(body)
        yield connection


@pytest.mark.slow
@pytest.mark.parametrize("promised", [450_000, None], ids=["by what is promised", "by what has come"])
def test_uploads_at_the_same_time_count_together(pair: tuple[Server, str, str], promised: int | None) -> None:
    """Nothing is stored yet, and the second one is refused all the same: at once, or when it grows too large."""
    server, attacker, neighbour = pair
    with open_upload(server, attacker, promised=promised, sent=400_000):
        time.sleep(0.3)
        with open_upload(server, attacker, promised=promised, sent=400_000) as second:
            assert second.recv(4096).startswith(b"HTTP/1.1 429 ")
        assert upload(server, neighbour, 100_000).status_code == 200
    deadline = time.monotonic() + 20  # the first hung up: its room is free again
    while upload(server, attacker, 300_000).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    clear(server, attacker, neighbour)


def test_what_comes_in_without_a_length_is_stopped(pair: tuple[Server, str, str]) -> None:
    """Nine times the key's room, in chunks: refused long before its end, and nothing is left behind."""
    server, attacker, _ = pair

    def body() -> Iterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="file"; filename="x"\r\n\r\n'
        for _ in range(90):
            yield bytes(50_000)
            time.sleep(0.01)
        yield b"\r\n--b--\r\n"

    headers = {"Authorization": f"Bearer {attacker}", "Content-Type": "multipart/form-data; boundary=b"}
    started = time.monotonic()
    try:
        reply = httpx.post(f"{server.url}/v1/files", headers=headers, content=body(), timeout=30)
        assert "it may keep" in refused(reply)
    except httpx.WriteError:  # the connection was closed on it
        assert time.monotonic() - started < 20
    assert upload(server, attacker, 300_000).status_code == 200
    clear(server, attacker)


def test_shares_by_hand() -> None:
    """100 bytes: one owner has 50; two have 33 each; the number of files goes by the same rule."""
    kept = [FileRecord(f"f{i}", owner, "x", "p", size, 0) for i, (owner, size) in enumerate([("a", 33), ("b", 33)])]
    quota = UploadQuota(100, 8, 0.5, lambda: kept)
    with quota.reservation("c", 17), pytest.raises(ServeError, match="may keep 25"), quota.reservation("a", 0):
        pass
    with pytest.raises(ServeError, match="keep 34 bytes here; it may keep 33"), quota.reservation("a", 1):
        pass
    with quota.reservation("b", 0) as coming, pytest.raises(ServeError, match="it may keep 33"):
        quota.grow(coming, 1)
    small = [FileRecord(f"f{i}", "a", "x", "p", 1, 0) for i in range(4)]
    quota = UploadQuota(100, 8, 0.5, lambda: small)
    with pytest.raises(ServeError, match="keeps 4 uploads here, and may keep 4"), quota.reservation("a"):
        pass
    with quota.reservation("b"):
        pass


def test_what_a_crash_left_is_swept_away(tmp_path: Path) -> None:
    store = FileStore(str(tmp_path), 10**6, 3600)
    ident = "file-" + "0" * 32
    for name in (f"{ident}.bin", f"{ident}.partial"):
        (tmp_path / name).write_bytes(b"x")
    assert store.sweep() == []
    assert len(list(tmp_path.iterdir())) == 2, "somebody may be writing them"
    for path in tmp_path.iterdir():
        os.utime(path, (time.time() - 7200,) * 2)
    store.sweep()
    assert list(tmp_path.iterdir()) == []


def test_two_processes_on_one_folder_count_each_others_uploads(tmp_path: Path) -> None:
    one, other = (FileStore(str(tmp_path), 100, 3600) for _ in range(2))

    async def save(store: FileStore, size: int) -> FileRecord:
        pieces: list[bytes] = [bytes(size), b""]

        async def read(_: int) -> bytes:
            return pieces.pop(0)

        return await store.save("alice", "x", "p", read)

    first = asyncio.run(save(one, 60))
    with pytest.raises(ServeError, match="used up"):
        asyncio.run(save(other, 60))
    one.delete("alice", first.id)
    assert asyncio.run(save(other, 60)).bytes == 60
    assert json.loads(next(tmp_path.glob("*.json")).read_text())["owner"] == "alice"
