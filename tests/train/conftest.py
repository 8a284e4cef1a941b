"""What the tests of nano's recipe share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def nano_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The recipe's tokenizer.json, which takes a quarter of a minute to make: once for all processes of a run."""
    from smolvlm.train.nano.tokenizer import build_tokenizer

    folder = tmp_path_factory.getbasetemp()
    path = (folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder) / "nano_tokenizer.json"
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            path.write_text(build_tokenizer(), encoding="utf-8")
    return path
