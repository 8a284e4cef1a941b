"""One tiny checkpoint for the room's tests, and a way to damage copies of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from smolvlm.checkpoint import write_random_checkpoint


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """float32, one file. Read only: tests that change something take `tiny_copy`."""
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "tiny")


@pytest.fixture(scope="session")
def tiny_sharded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same weights in several files of at most 10 MB (the two embeddings are larger and stand alone)."""
    return write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "sharded", max_shard_bytes=10_000_000)


@pytest.fixture
def tiny_copy(tiny_folder: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


@pytest.fixture
def make_safetensors() -> Callable[..., Path]:
    """Write a file with exactly this header and data, however wrong."""

    def make(path: Path, header: Any, data: bytes = b"", length: int | None = None) -> Path:
        text = header if isinstance(header, bytes) else json.dumps(header).encode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
        return path

    return make
