"""`processor.tokenizer` and the dictionary that comes back, against the reference's."""

from __future__ import annotations

import copy
import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers_compat import ours, reference
from helpers_prompt import tiny_checkpoint
from smolvlm import AutoProcessor
from smolvlm.compat import BatchFeature
from smolvlm.errors import CheckpointError, ParamsError, PromptError

ROW = [1, 3633, 42, 49190, 49190, 512, 900, 49279, 2, 2]
SHAPES: list[Any] = [
    ROW,
    [ROW, ROW[:4]],
    torch.tensor(ROW),
    torch.tensor([ROW, ROW]),
    np.array([ROW]),
    3633,
    [],
    [torch.tensor(ROW), torch.tensor(ROW[2:])],
]


@pytest.mark.parametrize("ids", SHAPES, ids=lambda ids: f"{type(ids).__name__}{getattr(ids, 'shape', '')}")
@pytest.mark.parametrize("skip", [True, False])
def test_decoding(ids: Any, skip: bool) -> None:
    mine, theirs = (side.processor.decode(ids, skip_special_tokens=skip) for side in (ours(), reference()))
    assert mine == theirs
    if not isinstance(ids, int):
        mine, theirs = (
            side.processor.batch_decode(ids, skip_special_tokens=skip, clean_up_tokenization_spaces=False) for side in (ours(), reference())
        )
        assert mine == theirs or (ids == [] and mine == [])


def test_names_and_ids() -> None:
    mine, theirs = ours().processor.tokenizer, reference().processor.tokenizer
    for name in (
        "bos_token",
        "eos_token",
        "pad_token",
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "image_token",
        "image_token_id",
        "padding_side",
    ):
        assert getattr(mine, name) == getattr(theirs, name), name
    assert len(mine) == len(theirs)
    names = ["<image>", "<end_of_utterance>", "<row_2_col_3>"]
    assert mine.convert_tokens_to_ids(names) == theirs.convert_tokens_to_ids(names)
    assert mine.convert_tokens_to_ids("<image>") == theirs.convert_tokens_to_ids("<image>")
    text = "Two words <image> and 123"
    assert mine.encode(text, add_special_tokens=False) == theirs.encode(text, add_special_tokens=False)
    assert mine(text)["input_ids"] == theirs(text)["input_ids"]
    batch = mine([text, "one"], padding=True, return_tensors="pt"), theirs([text, "one"], padding=True, return_tensors="pt")
    assert torch.equal(batch[0].input_ids, batch[1].input_ids)
    assert torch.equal(batch[0].attention_mask, batch[1].attention_mask)


def test_the_checkpoint_decides_the_padding_side(tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_checkpoint(), tmp_path / "model")
    raw = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(raw | {"padding_side": "left", "pad_token": {"content": "<image>"}}))
    tokenizer = AutoProcessor.from_pretrained(folder).tokenizer
    assert (tokenizer.padding_side, tokenizer.pad_token) == ("left", "<image>")
    (folder / "tokenizer_config.json").write_text(json.dumps(raw | {"padding_side": "up"}))
    with pytest.raises(CheckpointError, match=r"tokenizer_config\.json.*'up'"):
        AutoProcessor.from_pretrained(folder)
    (folder / "tokenizer_config.json").unlink()
    assert AutoProcessor.from_pretrained(folder).tokenizer.eos_token == "<end_of_utterance>"


def test_bad_ids_and_settings() -> None:
    tokenizer = AutoProcessor.from_pretrained(tiny_checkpoint()).tokenizer
    for ids in ([-1], [2**40], ["a"], [1.5], None):
        with pytest.raises(PromptError):
            tokenizer.decode(ids)
    with pytest.raises(ParamsError, match="padding_side"):
        tokenizer.padding_side = "middle"
    with pytest.raises(ParamsError, match="clean_up"):
        tokenizer.decode([1], clean_up_tokenization_spaces=True)
    with pytest.raises(CheckpointError, match="no-such-token"):
        tokenizer.convert_tokens_to_ids("no-such-token")
    with pytest.raises(PromptError):
        tokenizer.encode(3)  # type: ignore[arg-type]


def test_the_dictionary() -> None:
    batch = BatchFeature({"input_ids": torch.tensor([[1]]), "pixel_values": torch.ones(1, 2), "labels": "kept"})
    assert batch.to("cpu", dtype=torch.float16) is batch
    assert (batch.pixel_values.dtype, batch["input_ids"].dtype, batch["labels"]) == (torch.float16, torch.int64, "kept")
    assert batch.to(torch.bfloat16).pixel_values.dtype == torch.bfloat16
    assert set(dict(**batch)) == set(batch.keys()) == {"input_ids", "pixel_values", "labels"}
    for twin in (copy.copy(batch), copy.deepcopy(batch), pickle.loads(pickle.dumps(batch))):
        assert torch.equal(twin.input_ids, batch.input_ids)
    with pytest.raises(AttributeError, match="pixel_mask"):
        _ = batch.pixel_mask
    with pytest.raises(ParamsError, match="no torch dtype"):
        batch.to(dtype="bfloat16")
