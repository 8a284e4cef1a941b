"""The tiny checkpoint and the parts of the prompt room read from it."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers_prompt import tiny_checkpoint
from smolvlm.prompt import ChatTemplate, PromptTokenizer


@pytest.fixture(scope="session")
def folder() -> Path:
    return tiny_checkpoint()


@pytest.fixture(scope="session")
def tokenizer(folder: Path) -> PromptTokenizer:
    return PromptTokenizer.from_folder(folder)


@pytest.fixture(scope="session")
def template(folder: Path) -> ChatTemplate:
    return ChatTemplate.from_folder(folder)
