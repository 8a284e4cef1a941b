"""The model object: precision, place, what is checked on loading and what is only said."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers_compat import CALL, ours
from helpers_prompt import tiny_checkpoint
from smolvlm import AutoModelForImageTextToText, AutoProcessor
from smolvlm.errors import CheckpointError, EngineError, ModelNotFoundError, ParamsError


def copied(tmp_path: Path, **changes: Any) -> Path:
    """The tiny checkpoint with keys of `config.json` changed; None takes a key away."""
    folder = shutil.copytree(tiny_checkpoint(), tmp_path / "model")
    raw = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({key: value for key, value in raw.items() if value is not None}))
    return folder


@pytest.mark.parametrize(
    ("changes", "arguments"),
    [
        ({}, {}),
        ({"torch_dtype": "bfloat16"}, {}),
        ({"torch_dtype": None, "dtype": "float16"}, {}),
        ({"torch_dtype": None}, {}),
        ({"torch_dtype": "bfloat16"}, {"dtype": "auto"}),
        ({"torch_dtype": "bfloat16"}, {"torch_dtype": torch.float32}),
        ({}, {"dtype": "bfloat16"}),
    ],
)
def test_precision_is_chosen_as_the_reference_chooses_it(tmp_path: Path, changes: Any, arguments: Any) -> None:
    from oracle import transformers

    folder = copied(tmp_path, **changes)
    mine, theirs = (
        kind.from_pretrained(folder, **arguments) for kind in (AutoModelForImageTextToText, transformers.AutoModelForImageTextToText)
    )
    assert mine.dtype == theirs.dtype
    assert mine.engine.dtype == str(mine.dtype).removeprefix("torch.")
    assert mine.device == theirs.device == torch.device("cpu")


def test_moving_and_casting(talks: dict[str, list[Any]]) -> None:
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint(), device_map="cpu").eval()
    inputs = ours().processor.apply_chat_template(talks["text"], **CALL, return_tensors="pt")
    expected = model.generate(**inputs, max_new_tokens=4)
    engine = model.engine
    assert model.to("cpu") is model
    assert model.to(torch.device("cpu"), torch.float32).engine is engine  # nothing changed: nothing is read again
    assert model.bfloat16().dtype == torch.bfloat16
    assert model.engine.dtype == "bfloat16"
    assert model.half().to("cpu", dtype=torch.float32, non_blocking=True).float().cpu().dtype == torch.float32
    assert torch.equal(model.generate(**inputs, max_new_tokens=4), expected)
    for wrong in ({"device": "nonsense"}, {"dtype": torch.int8}):
        with pytest.raises(EngineError):
            model.to(**wrong)
    if not torch.cuda.is_available():
        for call in (lambda: model.to("cuda"), lambda: model.cuda(), lambda: model.to(0), lambda: inputs.to("cuda")):
            with pytest.raises(EngineError, match="cuda"):
                call()
    for arguments in (("cpu", "cpu"), (torch.float32, torch.float16), (3.5,)):
        with pytest.raises(ParamsError):
            model.to(*arguments)


def test_arguments_without_effect_are_named_and_unknown_ones_refused(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "smolvlm.compat"):
        AutoModelForImageTextToText.from_pretrained(
            tiny_checkpoint(), attn_implementation="sdpa", low_cpu_mem_usage=True, trust_remote_code=False, device_map="auto"
        )
        AutoProcessor.from_pretrained(tiny_checkpoint(), use_fast=True, local_files_only=True)
    for name in ("attn_implementation", "low_cpu_mem_usage", "trust_remote_code", "use_fast"):
        assert name in caplog.text
    assert "device_map" not in caplog.text  # that one is used
    for kind in (AutoModelForImageTextToText, AutoProcessor):
        with pytest.raises(ParamsError, match="load_in_4bit"):
            kind.from_pretrained(tiny_checkpoint(), load_in_4bit=True)
        with pytest.raises(ModelNotFoundError, match="nowhere"):
            kind.from_pretrained("./nowhere")
    for wrong in ({"device_map": {"lm_head": 0, "model": 1}}, {"device_map": "nonsense"}, {"dtype": "int8"}):
        with pytest.raises(EngineError):
            AutoModelForImageTextToText.from_pretrained(tiny_checkpoint(), **wrong)
    with pytest.raises(ParamsError, match="dtype"):
        AutoModelForImageTextToText.from_pretrained(tiny_checkpoint(), dtype=16)


def test_weights_are_checked_on_loading_and_read_when_used(tmp_path: Path) -> None:
    folder = copied(tmp_path)
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(10_000)
    with pytest.raises(CheckpointError):
        AutoModelForImageTextToText.from_pretrained(folder)
    model = AutoModelForImageTextToText.from_pretrained(tiny_checkpoint())
    assert model._engine is None
    assert model.engine is model.engine


def test_importing_needs_no_torch() -> None:
    code = (
        "import sys, smolvlm; smolvlm.AutoProcessor, smolvlm.AutoModelForImageTextToText; "
        "from smolvlm.compat import BatchFeature; BatchFeature({'input_ids': [1]}); "
        "assert 'torch' not in sys.modules and 'transformers' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
