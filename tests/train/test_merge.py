"""Merged checkpoints: peft's own merge as the oracle, read by `transformers`, and what is refused."""

from __future__ import annotations

from pathlib import Path

import oracle  # noqa: F401  # before peft and transformers
import peft
import pytest
import torch
from transformers import AutoProcessor, SmolVLMForConditionalGeneration

import smolvlm
from smolvlm.checkpoint.random import write_random_checkpoint
from smolvlm.config import load_configs
from smolvlm.errors import AdapterError, CheckpointError
from smolvlm.nn.weights import load_model
from smolvlm.train.adapters import AdapterOptions, adapter_parameters, add_adapter, save_adapter
from smolvlm.train.merge import companions, merge

IDS = torch.tensor([[1, 11126, 42, 1812, 314, 260, 3575, 282, 4649, 47, 49279]])


@pytest.fixture(scope="module", params=["lora", "dora"])
def adapter(request: pytest.FixtureRequest, tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = load_model(tiny_checkpoint, load_configs(tiny_checkpoint)[0])
    add_adapter(model, AdapterOptions(method=request.param, rank=4))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in adapter_parameters(model).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)
    return save_adapter(model, tmp_path_factory.mktemp("adapter") / request.param, tiny_checkpoint)


def test_transformers_reads_the_merged_checkpoint_and_agrees_with_peft(tiny_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    """Everything on the right is theirs: transformers' model, peft's loader, peft's merge."""
    steps: list[tuple[int, int]] = []
    out = merge(tiny_checkpoint, adapter, tmp_path / "out", on_tensor=lambda done, total: steps.append((done, total)))
    assert steps[-1][0] == steps[-1][1] == len(steps)
    theirs = peft.PeftModel.from_pretrained(
        SmolVLMForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32), str(adapter)
    ).merge_and_unload()
    merged, loading = SmolVLMForConditionalGeneration.from_pretrained(out, dtype=torch.float32, output_loading_info=True)
    assert not loading["missing_keys"]
    assert not loading["unexpected_keys"]
    for (name, ours), wanted in zip(merged.state_dict().items(), theirs.state_dict().values(), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=0, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert (merged(IDS).logits - SmolVLMForConditionalGeneration.from_pretrained(tiny_checkpoint)(IDS).logits).abs().max() > 0.1
    AutoProcessor.from_pretrained(out)
    assert companions(out) == companions(tiny_checkpoint)


def test_merging_equals_loading_with_the_adapter(tiny_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    out = merge(tiny_checkpoint, adapter, tmp_path / "out", dtype="bfloat16")
    options = ["a cat", "a dog", "nothing at all"]
    merged = smolvlm.load(out, engine="torch", dtype="bfloat16", device="cpu").choose(None, "What is it?", options)
    adapted = smolvlm.load(tiny_checkpoint, adapter=adapter, engine="torch", dtype="bfloat16", device="cpu").choose(
        None, "What is it?", options
    )
    assert merged.logprobs == adapted.logprobs  # both round the same float32 sum once


@pytest.mark.slow
def test_what_is_refused_leaves_nothing_behind(tiny_checkpoint: Path, adapter: Path, tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match="other weights"):
        merge(write_random_checkpoint(tmp_path / "other", "tiny", seed=1), adapter, tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(CheckpointError, match="mine"):
            merge(tiny_checkpoint, adapter, tmp_path / "mine", overwrite=overwrite)
    with pytest.raises(CheckpointError, match="dtype='int4'"):
        merge(tiny_checkpoint, adapter, tmp_path / "out", dtype="int4")
    assert sorted(p.name for p in tmp_path.iterdir() if not p.name.startswith("_")) == ["mine", "other"]
