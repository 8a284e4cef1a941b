"""Which weights a model has: what reports, batches and stored features name."""

from __future__ import annotations

import hashlib
from pathlib import Path

from smolvlm.checkpoint.adapter import WEIGHTS_FILE
from smolvlm.checkpoint.fingerprint import fingerprint
from smolvlm.checkpoint.native_file import NativeFile, has_native_file
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import load_configs
from smolvlm.errors import AdapterError


def fingerprint_of(folder: Path, adapter: str | Path | None = None) -> str:
    """32 hexadecimal digits of a checkpoint's weights (checkpoint.fingerprint), and 32 more of an adapter's file.

    A folder that `smolvlm quantize` made has those of its source. Raises ConfigError or CheckpointError for the checkpoint,
    AdapterError for an adapter that cannot be read.
    """
    base = _base(folder)
    if adapter is None:
        return base
    path = Path(adapter).expanduser() / WEIGHTS_FILE
    try:
        with path.open("rb") as file:
            digest = hashlib.blake2b(digest_size=16)
            while piece := file.read(1 << 20):
                digest.update(piece)
    except OSError as error:
        raise AdapterError(f"{path}: cannot be read ({error.strerror}); pass the folder of a saved adapter.") from None
    return f"{base}+{digest.hexdigest()}"


def _base(folder: Path) -> str:
    if has_native_file(folder):
        return NativeFile(folder).header.fingerprint
    config, _ = load_configs(folder)
    with CheckpointReader(folder) as reader:
        return fingerprint(reader, reader.verify(config))
