"""API keys: what is kept of them is a hash, and comparing takes the same time whatever was sent.

A key is 32 random bytes, so a plain SHA-256 of it cannot be searched for; slow hashes are for passwords.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smolvlm.errors import ParamsError

_NAME = re.compile(r"[A-Za-z0-9_.@-]{1,64}", re.ASCII)
_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True)
class KeyOwner:
    """Who a key belongs to, with limits of its own: requests a minute and at the same time; None: the server's."""

    name: str
    rate: float | None = None
    concurrency: int | None = None


class KeyRing:
    """The keys of a file: JSON, `{"keys": [{"name", "sha256", "rate"?, "concurrency"?}]}`. Raises ParamsError naming it."""

    def __init__(self, file: Path) -> None:
        entries = _read(file)
        self._entries: list[tuple[bytes, KeyOwner]] = []
        for i, entry in enumerate(entries):
            name, digest = entry.get("name"), entry.get("sha256")
            rate, concurrency = entry.get("rate"), entry.get("concurrency")
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise ParamsError(f"{file}: key {i} needs a name of 1 to 64 letters, digits, dots, dashes or @.")
            if not isinstance(digest, str) or not _HASH.fullmatch(digest):
                raise ParamsError(f"{file}: key {name} needs a sha256 of 64 hexadecimal digits.")
            for what, value in (("rate", rate), ("concurrency", concurrency)):
                if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
                    raise ParamsError(f"{file}: key {name} has {what}={value!r}; expected a number above 0.")
            most = None if concurrency is None else int(concurrency)
            owner = KeyOwner(name, None if rate is None else float(rate), most)
            self._entries.append((bytes.fromhex(digest), owner))
        if not self._entries:
            raise ParamsError(f"{file} holds no key; make one with `smolvlm serve --new-key NAME --keys-file {file}`.")

    def owner(self, key: str) -> KeyOwner | None:
        """Who `key` belongs to. Every entry is compared, in constant time each."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        found: KeyOwner | None = None
        for known, owner in self._entries:
            if hmac.compare_digest(known, digest):
                found = owner
        return found


def new_key(file: Path, name: str) -> str:
    """Add a key for `name` to `file` and return it: it is shown once and kept nowhere. Raises ParamsError."""
    if not _NAME.fullmatch(name):
        raise ParamsError(f"{name[:80]!r}: a key's name has 1 to 64 letters, digits, dots, dashes or @.")
    entries = _read(file) if file.exists() else []
    if any(entry.get("name") == name for entry in entries):
        raise ParamsError(f"{file}: there is a key named {name} already; take another name, or delete its line first.")
    key = f"sk-{secrets.token_urlsafe(32)}"
    entries.append({"name": name, "sha256": hashlib.sha256(key.encode()).hexdigest()})
    partial = file.with_name(f"{file.name}.partial")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as stream:
            json.dump({"keys": entries}, stream, indent=1)
            stream.write("\n")
        partial.replace(file)
    except OSError as error:
        raise ParamsError(f"{file} cannot be written ({error.strerror}).") from None
    return key


def _read(file: Path) -> list[dict[str, Any]]:
    try:
        raw = json.loads(file.read_text(encoding="utf-8"))
        entries = raw["keys"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ParamsError(f'{file}: cannot be read as {{"keys": [...]}} ({type(error).__name__}).') from None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ParamsError(f'{file}: "keys" is not a list of objects.')
    return entries
