"""Where a user's library lies when nobody says it."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def default_path() -> Path:
    """`smolvlm/library.db` in the user's data folder: XDG_DATA_HOME, or what the system uses instead."""
    if stated := os.environ.get("XDG_DATA_HOME"):
        base = Path(stated)
    elif sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Application Support"
    else:
        base = Path.home() / ".local" / "share"
    return base / "smolvlm" / "library.db"
