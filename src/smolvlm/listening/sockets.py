"""A listening socket for a server of ours."""

from __future__ import annotations

import socket
import sys

from smolvlm.errors import ParamsError


def listen(host: str, port: int) -> socket.socket:
    """A bound TCP socket; port 0 takes a free one. Raises ParamsError for an address that cannot be had."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        if sys.platform != "win32":  # there it would let two programs share the port
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
    except OSError as error:
        raise ParamsError(
            f"cannot listen on {host} port {port} ({error.strerror}); pass another --host or --port."
        ) from None
    return listening
