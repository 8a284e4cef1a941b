"""nano in this process, to compare with and to spare the tests its loading."""

from __future__ import annotations

import pytest

import smolvlm
from smolvlm import SmolVLM


@pytest.fixture(scope="session")
def nano() -> SmolVLM:
    return smolvlm.load("nano", device="cpu")
