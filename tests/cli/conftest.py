"""Command lines run in this process, through the same `main` that the installed program calls."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import smolvlm.vlm
from smolvlm.cli.main import main


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    """Threads gain nothing on a tiny model, and cost much where other tests run at the same time."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def _loaded() -> dict[Any, smolvlm.vlm.SmolVLM]:
    return {}


@pytest.fixture(autouse=True)
def _load_once(_loaded: dict[Any, smolvlm.vlm.SmolVLM], monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that was loaded serves later command lines with the same options: loading is most of their time.

    For each test anew: tests of other folders that run after these in one process load models of their own.
    """
    load = smolvlm.vlm.load

    def load_once(model: Any, *, on_progress: Any = None, **options: Any) -> smolvlm.vlm.SmolVLM:
        key = (str(model), *sorted(options.items()))
        if key not in _loaded:
            _loaded[key] = load(model, on_progress=on_progress, **options)
        return _loaded[key]

    monkeypatch.setattr(smolvlm.vlm, "load", load_once)


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """run("ask", "photo.jpg", ...) -> exit code, stdout, stderr."""
    monkeypatch.delenv("SMOLVLM_DEBUG", raising=False)

    def call(*args: object) -> Result:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def model(tiny_checkpoint: Path) -> tuple[str, ...]:
    """The options that choose the tiny checkpoint, in the precision that does not depend on the machine."""
    return ("--model", str(tiny_checkpoint), "--dtype", "float32", "--device", "cpu")
