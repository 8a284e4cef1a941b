"""`LocalServer`: threads of the standard library, for the one user of this machine."""

from __future__ import annotations

import contextlib
import http.server
import logging
import secrets
import threading
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from smolvlm.apps.local_server.replies import Reply, Request
from smolvlm.errors import ParamsError, SmolVLMError

logger = logging.getLogger(__name__)

Route = Callable[[Request], Reply]
_HOST = "127.0.0.1"
_BLOCK = 1 << 16
_MOST_THREADS = 32
_SILENT_S = 30.0  # a caller that says nothing for so long is let go
_ALWAYS = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cross-Origin-Resource-Policy": "same-origin",
    "X-Frame-Options": "DENY",
}


class LocalServer:
    """Listens from the moment it is made. Routes are called from several threads."""

    def __init__(self, routes: Mapping[str, Route], *, port: int = 0, token: str | None = None) -> None:
        """`routes`: path behind the token -> what answers it. `token`: None makes a new one. Raises ParamsError."""
        self.token = token or secrets.token_urlsafe(24)
        self._routes = dict(routes)
        try:
            self._server = _Server((_HOST, port), self._handler())
        except OSError as error:
            raise ParamsError(f"cannot listen on {_HOST} port {port} ({error.strerror}); pass another port, or 0 for a free one.") from None
        self.port = int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """The address of the page, with the token: who has it may ask everything."""
        return f"http://{_HOST}:{self.port}/{self.token}/"

    def serve_forever(self) -> None:
        """Answer until `close`, or Ctrl-C."""
        self._server.serve_forever(poll_interval=0.2)

    def start(self) -> None:
        """Answer in a thread of its own."""
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> LocalServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.server_close()

    def _handler(self) -> type[http.server.BaseHTTPRequestHandler]:
        owner = self

        class Handler(http.server.BaseHTTPRequestHandler):
            timeout = _SILENT_S
            server_version, sys_version = "smolvlm", ""

            def do_GET(self) -> None:
                self._answer(owner.reply(self.path, dict(self.headers.items())), body=True)

            def do_HEAD(self) -> None:
                self._answer(owner.reply(self.path, dict(self.headers.items())), body=False)

            def _answer(self, reply: Reply, *, body: bool) -> None:
                with contextlib.suppress(OSError):  # the caller went away, or the file did
                    self.send_response(reply.status)
                    count = reply.count if reply.file is not None else len(reply.body)
                    for name, value in {**_ALWAYS, "Content-Type": reply.kind, "Content-Length": str(count), **reply.headers}.items():
                        self.send_header(name, value)
                    self.end_headers()
                    if body and reply.file is None:
                        self.wfile.write(reply.body)
                    elif body and reply.file is not None:
                        self._send_part(reply)

            def _send_part(self, reply: Reply) -> None:
                assert reply.file is not None, "a part is of a file"
                with reply.file.open("rb") as file:
                    file.seek(reply.start)
                    left = reply.count
                    while left and (block := file.read(min(_BLOCK, left))):
                        self.wfile.write(block)
                        left -= len(block)

            def log_message(self, *_: Any) -> None:
                logger.debug("answered a request")  # its address holds the token

        return Handler

    def reply(self, target: str, headers: Mapping[str, str]) -> Reply:
        """The answer to one request. Refuses before anything is looked up."""
        found = {name.lower(): value for name, value in headers.items()}
        if found.get("host", "").lower() not in (f"{_HOST}:{self.port}", f"localhost:{self.port}"):
            return Reply.text("this server answers to 127.0.0.1 alone.", 421)
        if found.get("sec-fetch-site", "none") not in ("none", "same-origin"):
            return Reply.text("a page of another site may not ask this.", 403)
        parts = urlsplit(target)
        token, _, rest = parts.path.lstrip("/").partition("/")
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
            return Reply.text("the token in the address is missing or wrong; open the address that the program printed.", 403)
        route = self._routes.get(f"/{rest}")
        if route is None:
            return Reply.text("no such page.", 404)
        try:
            query: dict[str, str] = {}
            for name, value in parse_qsl(parts.query, max_num_fields=50):
                query.setdefault(name, value)
            return route(Request(f"/{rest}", query, found, self.url))
        except SmolVLMError as error:
            return Reply.json({"error": str(error)}, 400)
        except ValueError:
            return Reply.json({"error": "the address is malformed."}, 400)
        except Exception:
            logger.exception("a request failed")
            return Reply.json({"error": "this failed by a defect of the program; its log says more."}, 500)


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._free = threading.BoundedSemaphore(_MOST_THREADS)

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(timeout=5):
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()
