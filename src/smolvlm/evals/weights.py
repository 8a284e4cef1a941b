"""Which weights a report is about."""

from __future__ import annotations

import hashlib
from pathlib import Path

from smolvlm.checkpoint.adapter import WEIGHTS_FILE
from smolvlm.checkpoint.fingerprint import fingerprint
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import load_configs
from smolvlm.errors import EvalError


def fingerprint_of(folder: Path, adapter: str | Path | None = None) -> str:
    """32 hexadecimal digits of a checkpoint's weights (checkpoint.fingerprint), and 32 more of an adapter's file.

    Raises ConfigError or CheckpointError for the checkpoint, EvalError for an adapter that cannot be read.
    """
    config, _ = load_configs(folder)
    with CheckpointReader(folder) as reader:
        config = reader.verify(config)
        base = fingerprint(reader, config)
    if adapter is None:
        return base
    path = Path(adapter).expanduser() / WEIGHTS_FILE
    try:
        with path.open("rb") as file:
            digest = hashlib.blake2b(digest_size=16)
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise EvalError(f"{path}: cannot be read ({error.strerror}); pass the folder of a saved adapter.") from None
    return f"{base}+{digest.hexdigest()}"
