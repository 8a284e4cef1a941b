"""Loading and saving: `transformers` reads what we write, and we refuse what does not fit."""

from __future__ import annotations

from pathlib import Path

import oracle  # noqa: F401
import pytest
import torch
from transformers import SmolVLMForConditionalGeneration as Reference

from smolvlm.checkpoint.random import write_random_checkpoint
from smolvlm.config import load_configs
from smolvlm.errors import PromptError
from smolvlm.nn.weights import load_model, save_model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_transformers_loads_what_we_save(tiny_checkpoint: Path, tmp_path: Path, dtype: torch.dtype) -> None:
    config, processor_config = load_configs(tiny_checkpoint)
    model = load_model(tiny_checkpoint, config, dtype=dtype)
    saved = save_model(model, tmp_path / "saved", processor_config, tiny_checkpoint / "tokenizer.json")
    reference, info = Reference.from_pretrained(saved, dtype=dtype, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    theirs = reference.state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name


@pytest.mark.parametrize(("stored", "max_shard_bytes"), [("float32", 4_000_000), ("bfloat16", 5_000_000_000), ("float16", 5_000_000_000)])
def test_any_stored_dtype_single_or_sharded(tmp_path: Path, stored: str, max_shard_bytes: int) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "tiny", dtype=stored, max_shard_bytes=max_shard_bytes)
    assert (len(list(folder.glob("*.safetensors"))) > 1) == (max_shard_bytes < 10_000_000)
    config, _ = load_configs(folder)
    ours = load_model(folder, config).state_dict()
    theirs = Reference.from_pretrained(folder, dtype=torch.float32).state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_the_file_may_vanish_after_loading(tmp_path: Path) -> None:
    folder = write_random_checkpoint(tmp_path / "model", "tiny")
    config, _ = load_configs(folder)
    model = load_model(folder, config)
    before = model(torch.tensor([[5, 6, 7]]))
    weights = folder / "model.safetensors"
    weights.write_bytes(b"\0" * weights.stat().st_size)
    assert torch.equal(model(torch.tensor([[5, 6, 7]])), before)


def test_image_tokens_and_embeddings_must_agree(tiny_checkpoint: Path) -> None:
    """Others spliced what they had and shifted every later picture ("tokens: 81, features 1053")."""
    config, _ = load_configs(tiny_checkpoint)
    model = load_model(tiny_checkpoint, config)
    ids = torch.full((1, config.image_seq_len), config.image_token_id)
    side = config.vision.image_size
    with pytest.raises(PromptError, match=f"{config.image_seq_len} image tokens, but {2 * config.image_seq_len} rows"):
        model(ids, torch.zeros(2, 3, side, side))
    with pytest.raises(PromptError, match="but 0 rows"):
        model(ids)


def test_a_model_made_from_nothing_is_drawn_as_the_reference_draws(tiny_checkpoint: Path) -> None:
    from smolvlm.nn.model import SmolVLMForConditionalGeneration

    config, _ = load_configs(tiny_checkpoint)
    torch.manual_seed(0)
    for name, table in SmolVLMForConditionalGeneration(config).named_parameters():
        if "embed_tokens" in name or "position_embedding" in name:
            assert table.std().item() == pytest.approx(0.02, rel=0.05)  # thousands of draws: 2 % off at the most
