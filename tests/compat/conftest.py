"""One set of conversations for the whole run: their clips are made once."""

from __future__ import annotations

from typing import Any

import pytest

from helpers_compat import conversations


@pytest.fixture(scope="session")
def talks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    return conversations(tmp_path_factory.mktemp("clips"))
