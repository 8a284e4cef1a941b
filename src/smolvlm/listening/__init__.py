"""What a server of ours stands on: its socket, who may speak to it, and a folder that goes with it."""

from smolvlm.listening.callers import Callers
from smolvlm.listening.sockets import accept_from_now, listen

__all__ = ["Callers", "accept_from_now", "listen"]
