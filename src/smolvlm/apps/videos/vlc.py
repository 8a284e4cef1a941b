"""The VLC extension: where it goes, and what is written into it."""

from __future__ import annotations

import json
import os
import secrets
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from smolvlm.apps.library import default_path
from smolvlm.errors import SourceError

DEFAULT_PORT = 8790
_NAME = "smolvlm.lua"
_MARK = "-- smolvlm: search inside videos"  # the first line of every file that we wrote


@dataclass(frozen=True)
class Link:
    """What the extension and the server agree on."""

    port: int
    token: str

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/{self.token}/"


def extensions_folder() -> Path:
    """Where VLC looks for this user's extensions."""
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home()) / "vlc" / "lua" / "extensions"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "org.videolan.vlc" / "lua" / "extensions"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "vlc" / "lua" / "extensions"


def link(port: int | None = None) -> Link:
    """The link of this user, made where there is none; `port` changes it. Raises SourceError."""
    path = default_path().with_name("vlc.json")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        found = Link(int(raw["port"]), str(raw["token"]))
        if not (found.token.replace("-", "").replace("_", "").isalnum() and len(found.token) >= 24 and 0 < found.port < 65536):
            raise ValueError
    except (OSError, ValueError, KeyError, TypeError):
        found = Link(DEFAULT_PORT, secrets.token_urlsafe(24))
    wanted = found if port is None else Link(port, found.token)
    _write_private(path, json.dumps({"port": wanted.port, "token": wanted.token}))
    return wanted


def install(port: int | None = None) -> Path:
    """Write the extension; over an older one of ours, never over another's. Raises SourceError."""
    target = extensions_folder() / _NAME
    if target.exists() and not _is_ours(target):
        raise SourceError(f"{str(target)!r} is there already and is not ours; move it away first.")
    text = resources.files("smolvlm.apps.videos").joinpath("smolvlm.lua").read_text(encoding="utf-8")
    _write_private(target, text.replace("@URL@", link(port).url))
    return target


def uninstall() -> Path | None:
    """Delete the extension and the link; None where there is none. Raises SourceError."""
    target = extensions_folder() / _NAME
    default_path().with_name("vlc.json").unlink(missing_ok=True)
    if not target.exists():
        return None
    if not _is_ours(target):
        raise SourceError(f"{str(target)!r} is not ours, and was left alone.")
    target.unlink()
    return target


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.readline(200).startswith(_MARK)
    except OSError:
        return False


def _write_private(path: Path, text: str) -> None:
    """For this user's eyes: it holds the token."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise SourceError(f"{str(path)!r}: cannot be written ({error.strerror or error}).") from None
