"""One loaded tiny model for all tests of evaluations."""

from __future__ import annotations

from pathlib import Path

import pytest

import smolvlm
from smolvlm import SmolVLM


@pytest.fixture(scope="session")
def model(tiny_checkpoint: Path) -> SmolVLM:
    return smolvlm.load(tiny_checkpoint, dtype="float32", device="cpu")
