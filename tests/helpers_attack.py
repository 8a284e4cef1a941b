"""A client that sends the same requests again and again over several connections, in a process of its own and at low priority:
`python helpers_attack.py URL KEY CONNECTIONS REQUEST...`. Each answer's status is a line of its output."""

from __future__ import annotations

import os
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True)
class Request:
    """One POST, as bytes that need no more work."""

    path: str
    kind: str  # its Content-Type
    body: bytes

    def write(self, file: Path) -> Path:
        file.write_bytes(f"{self.path}\n{self.kind}\n".encode() + self.body)
        return file

    @classmethod
    def read(cls, file: Path) -> Request:
        path, kind, body = file.read_bytes().split(b"\n", 2)
        return cls(path.decode(), kind.decode(), body)


def attack(url: str, key: str, requests: list[Request], turn: int) -> None:
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=300) as http:
        while True:
            request = requests[turn % len(requests)]
            turn += 1
            try:
                reply = http.post(request.path, content=request.body, headers={"Content-Type": request.kind})
                if request.path == "/v1/files" and reply.status_code == 200:
                    http.delete(f"/v1/files/{reply.json()['id']}")
            except httpx.HTTPError:
                continue
            print(reply.status_code, flush=True)


def main() -> None:
    url, key, connections, *files = sys.argv[1:]
    os.nice(19)
    requests = [Request.read(Path(file)) for file in files]
    threads = [threading.Thread(target=attack, args=(url, key, requests, i)) for i in range(int(connections))]
    for thread in threads:
        thread.start()


if __name__ == "__main__":
    main()
