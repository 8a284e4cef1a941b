"""The process: listen, and end gracefully."""

from __future__ import annotations

import asyncio
import contextlib
import faulthandler
import importlib
import logging
import signal
import socket
import sys
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp

from smolvlm.listening import accept_from_now, listen
from smolvlm.serve.api.services import Services
from smolvlm.serve.app import create_app
from smolvlm.serve.config import ServeConfig
from smolvlm.serve.logs import log_as_json
from smolvlm.serve.protocol import protocol
from smolvlm.vlm import SmolVLM

logger = logging.getLogger(__name__)

CLOSING_S = 20.0  # after `drain_s`, the process ends, even if a thread of it hangs
_BACKLOG = 2048  # connections that wait to be accepted
_LOOK_S = 0.05
_SWITCH_S = 0.001  # after it a thread that parses a body hands the interpreter to the engine's; Python's default is 5 ms


class DrainingServer(uvicorn.Server):
    """On SIGTERM or Ctrl-C: new requests get 503, answers under way finish, then the process ends. A second signal hurries."""

    def __init__(self, config: uvicorn.Config, found: Services) -> None:
        super().__init__(config)
        self._found = found
        self._draining: asyncio.Task[None] | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002
        """uvicorn would close the port at once; clients would see a broken connection in place of an answer."""
        if self._draining is not None or not self.started:
            self.should_exit = self.force_exit = True
            return
        self._found.draining = True
        for piece in tuple(self._found.arriving):
            piece.cancel()  # a request that has not come is no answer under way
        faulthandler.dump_traceback_later(self._found.config.drain_s + CLOSING_S, exit=True)  # whatever holds it up
        self._draining = asyncio.get_event_loop().create_task(self._drain(signal.Signals(sig).name))

    async def on_tick(self, counter: int) -> bool:
        """Also ends the process when the model could not be warmed up."""
        return self._found.failed is not None or await super().on_tick(counter)

    async def _drain(self, name: str) -> None:
        loop = asyncio.get_running_loop()
        limit = loop.time() + self._found.config.drain_s
        logger.info("draining", extra={"facts": {"signal": name, "in_flight": self._found.in_flight}})
        while self._found.in_flight and loop.time() < limit:
            await asyncio.sleep(_LOOK_S)
        logger.info("drained", extra={"facts": {"unfinished": self._found.in_flight}})
        self.should_exit = True


def serve(model: SmolVLM, config: ServeConfig, listening: socket.socket | None = None) -> None:
    """Serve `model` until a signal ends it. Prints the address on stdout once it listens.

    `listening`: the socket, bound before the model was loaded. Raises ParamsError for an address that cannot be bound.
    """
    log_as_json(config.log_level)
    listening = listening or listen(config.host, config.port)
    app, found = create_app(model, config)
    accept_from_now(listening, _BACKLOG)
    announce(found.backend.name, listening)
    run(app, found, listening)


def announce(name: str, listening: socket.socket) -> None:
    """Print the address of a bound socket on stdout."""
    host, port = listening.getsockname()[:2]
    sys.stdout.write(f"smolvlm: {name} on http://{f'[{host}]' if ':' in host else host}:{port}\n")
    sys.stdout.flush()


def run(app: ASGIApp, found: Services, listening: socket.socket) -> None:
    """Answer on a bound socket until a signal comes. Raises what the model could not be warmed up for."""
    settings = uvicorn.Config(
        app,
        http=protocol(found.config.head_timeout_s),
        lifespan="on",
        timeout_graceful_shutdown=5,
        backlog=_BACKLOG,
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
    )
    _allow_connections()
    sys.setswitchinterval(_SWITCH_S)
    DrainingServer(settings, found).run(sockets=[listening])
    if found.failed is not None:
        raise found.failed


def _allow_connections() -> None:
    """As many open files as the system lets this process have: each connection is one."""
    try:
        resource: Any = importlib.import_module("resource")
    except ImportError:  # Windows has no such limit
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
