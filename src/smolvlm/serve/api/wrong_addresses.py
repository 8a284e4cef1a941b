"""What a client is told about an address or a method that this server does not have: the one that it most likely means."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from smolvlm.serve.api.wording import short
from smolvlm.serve.dialects import CHAT, RESPONSES

_CHAT_HERE = f"POST {CHAT.path} takes a conversation"
# Ends of addresses that other servers and other APIs have.
_ELSEWHERE = {
    "/completions": _CHAT_HERE,
    "/api/chat": _CHAT_HERE,
    "/api/generate": _CHAT_HERE,
    "/v1/messages": _CHAT_HERE,
    ":generateContent": _CHAT_HERE,
    "/generate": _CHAT_HERE,
    "/api/tags": "GET /v1/models lists the model",
    "/embeddings": "this server has no embeddings",
    "/images/generations": "this server draws no pictures",
    "/audio/transcriptions": "sound is not understood",
    "/audio/speech": "this server speaks no sound",
    "/batches": "smolvlm batch does batch jobs, on the command line",
    "/assistants": f"nothing is stored; {_CHAT_HERE}",
    "/threads": f"nothing is stored; {_CHAT_HERE}",
}


def no_such_address(path: str, known: Sequence[str]) -> str:
    """A sentence for 404. `known`: the paths that there are, without those with a name in them."""
    bare = path.rstrip("/")
    meant = next((address for address in known if len(address) > 1 and bare.endswith(address.removeprefix("/v1"))), None)
    if meant is not None:
        hint = f"; the address is {meant}" + (", so a client's base_url ends in /v1" if meant.startswith("/v1/") else "")
    elif bare.startswith(RESPONSES.path + "/"):
        hint = "; nothing is stored, so no response can be read again"
    elif bare.startswith("/v1/files/") and bare.endswith("/content"):
        hint = "; an upload is named in requests and not given back"
    else:
        hint = next((f"; {words}" for end, words in _ELSEWHERE.items() if bare.endswith(end)), "")
    return f"There is no address {short(path)} here{hint}; see /docs."


def wrong_method(method: str, path: str, allowed: Iterable[str]) -> str:
    """A sentence for 405. `allowed`: the methods that the address takes."""
    names = " and ".join(sorted(name.upper() for name in allowed))
    takes = f" takes {names}, not {method[:20]}" if names else f" does not take {method[:20]}"
    return f"The address {short(path)}{takes}; see /docs."
