"""A listening socket for a server of ours."""

from __future__ import annotations

import errno
import socket
import sys

from smolvlm.errors import ParamsError

_REMEDIES = {
    errno.EADDRNOTAVAIL: "pass a --host that this machine has, or 0.0.0.0 for all of its addresses",
    errno.EADDRINUSE: "another program listens there: pass another --port, or 0 for a free one",
}


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket; port 0 takes a free one. Raises ParamsError for an address that cannot be bound."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        if sys.platform != "win32":  # there it would let two programs share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        raise _refused(host, port, error) from None
    return listening


def accept_from_now(listening: socket.socket, backlog: int) -> None:
    """Raises ParamsError when another program bound the same address meanwhile and was quicker to listen."""
    try:
        listening.listen(backlog)
    except OSError as error:
        host, port = listening.getsockname()[:2]
        raise _refused(host, port, error) from None


def _refused(host: str, port: int, error: OSError) -> ParamsError:
    remedy = _REMEDIES.get(error.errno or 0, "pass another --host or --port")
    return ParamsError(f"cannot listen on {host} port {port} ({error.strerror}); {remedy}.")
