"""`smolvlm quantize` as a user types it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("smolvlm.engines._native", reason="the native engine is not built here")

Run = Callable[..., Any]


def test_quantise_and_ask(run: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    made = run("quantize", tiny_checkpoint, tmp_path / "q4", "--dtype", "q4", "--vision", "q8", "--head", "bf16")
    assert (made.code, made.out) == (0, f"{tmp_path / 'q4'}\n")
    assert "vision q8, text q4, head bf16" in made.err
    asked = ("choose", "Is it?", "--option", "yes", "--option", "no", "--json")
    from_file = run(*asked, "--model", tmp_path / "q4")
    at_load = run(*asked, "--model", tiny_checkpoint, "--dtype", "vision=q8,text=q4,head=bf16", "--device", "cpu")
    assert (from_file.code, at_load.code) == (0, 0)
    assert from_file.json["logprobs"] == at_load.json["logprobs"]
    assert "(native, cpu, vision=q8,text=q4,head=bf16)" in from_file.err
    shown, original = run("info", tmp_path / "q4", "--json"), run("info", tiny_checkpoint, "--json")
    assert shown.json["dtypes"] == ["quantized: vision q8", "text q4", "head bf16"]
    assert shown.json["parameters_by_part"] == original.json["parameters_by_part"]
    assert run("info", tmp_path / "q4").code == 0


def test_what_is_refused_leaves_nothing_behind(run: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for arguments, message in (
        ((tiny_checkpoint, tmp_path / "out", "--dtype", "q5"), "--dtype q5 is unknown"),
        ((tiny_checkpoint, tmp_path / "out", "--vision", "float32"), "'vision=float32' is not understood"),
        ((tiny_checkpoint, tmp_path / "mine"), "not empty"),
        ((tiny_checkpoint, tmp_path / "mine", "--overwrite"), "other than a checkpoint"),
        ((tmp_path / "mine", tmp_path / "out"), "config.json"),
    ):
        result = run("quantize", *arguments)
        assert (result.code, result.out) == (2, "")
        assert message in result.err
        assert len(result.err.splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_overwrite_replaces_a_checkpoint(run: Run, tiny_checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("quantize", tiny_checkpoint, out).code == 0
    before = (out / "native.safetensors").stat().st_size
    assert run("quantize", tiny_checkpoint, out, "--dtype", "q4").code == 2
    assert run("quantize", tiny_checkpoint, out, "--dtype", "q4", "--overwrite").code == 0
    assert (out / "native.safetensors").stat().st_size < before
    again = run("quantize", out, tmp_path / "again")
    assert (again.code, "is quantized already" in again.err) == (2, True)
