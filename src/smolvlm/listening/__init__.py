"""What a server of ours stands on: its socket, who may speak to it, and a folder that goes with it."""

from smolvlm.listening.callers import Callers
from smolvlm.listening.folders import OwnFolder
from smolvlm.listening.sockets import listen

__all__ = ["Callers", "OwnFolder", "listen"]
