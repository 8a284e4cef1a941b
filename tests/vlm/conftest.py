"""One loaded tiny model for all tests of the verbs: as users get it, and on torch in the outer ring."""

from __future__ import annotations

from pathlib import Path

import pytest

import smolvlm
from smolvlm import SmolVLM

ENGINES = {"native": {}, "torch": {"dtype": "float32", "device": "cpu"}}


@pytest.fixture(scope="session", params=["native", pytest.param("torch", marks=pytest.mark.slow)])
def model(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> SmolVLM:
    return smolvlm.load(tiny_checkpoint, engine=request.param, **ENGINES[request.param])
