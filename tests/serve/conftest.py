"""One server for the tests that do not change it, and the same model in this process to compare with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

import smolvlm
from helpers_serve import Server, serving
from smolvlm import SmolVLM


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("serve") / "log") as running:
        yield running


@pytest.fixture
def client(server: Server) -> OpenAI:
    return server.client()


@pytest.fixture(scope="session")
def nano() -> SmolVLM:
    return smolvlm.load("nano")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return tmp_path / "server.log"
