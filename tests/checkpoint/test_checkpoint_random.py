"""Random checkpoints: official format and token ids, reproducible, honest about what they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import transformers
from tokenizers import Tokenizer

from smolvlm.checkpoint import CheckpointReader, write_random_checkpoint
from smolvlm.checkpoint.random import TINY, random_tensors
from smolvlm.config import PRESETS, load_configs
from smolvlm.errors import CheckpointError, ConfigError

OFFICIAL_IDS = {
    "<|endoftext|>": 0,
    "<|im_start|>": 1,
    "<|im_end|>": 2,
    "<global-img>": 49152,
    "<row_1_col_1>": 49153,
    "<row_1_col_6>": 49158,
    "<row_2_col_1>": 49159,
    "<row_6_col_6>": 49188,
    "<fake_token_around_image>": 49189,
    "<image>": 49190,
    "<end_of_utterance>": 49279,
}


@pytest.fixture(scope="module")
def tokenizer(tiny_folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(tiny_folder / "tokenizer.json"))


def test_official_ids(tokenizer: Tokenizer) -> None:
    assert {token: tokenizer.token_to_id(token) for token in OFFICIAL_IDS} == OFFICIAL_IDS
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    assert sorted(vocab.values()) == list(range(49_280))
    for token, index in OFFICIAL_IDS.items():
        assert tokenizer.encode(f"a{token}b").ids[1:-1] == [index]


@pytest.mark.parametrize("text", ["Hello, world!", "1234", "\u732b\u5728\u684c\u5b50", "\U0001f408 \u00e9\n\n x\t", ""])
def test_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text).ids
    assert tokenizer.decode(ids) == text
    assert all(2 < index < 49152 for index in ids)
    if text.isdigit():
        assert len(ids) == len(text), "digits stand apart"


def test_the_tokenizer_learned_words(tokenizer: Tokenizer) -> None:
    """Not only bytes: common words are few tokens, as with a real vocabulary."""
    assert len(tokenizer.encode("The value of the expression is the name of the function").ids) <= 12


def test_equal_arguments_give_equal_weights(tmp_path: Path, tiny_folder: Path) -> None:
    again = write_random_checkpoint(tmp_path / "again")
    for name in ("model.safetensors", "config.json", "tokenizer.json"):
        assert (again / name).read_bytes() == (tiny_folder / name).read_bytes()
    other = dict(random_tensors(TINY, seed=1))
    same = CheckpointReader(tiny_folder)
    assert all(not np.array_equal(values, same.float32(name)) for name, values in other.items())


def test_weights_have_the_stated_distribution(tiny_folder: Path) -> None:
    reader = CheckpointReader(tiny_folder)
    embeddings = reader.float32("model.text_model.embed_tokens.weight")
    # 6.3 M draws: the standard deviation's own error is 0.02 / sqrt(2 n) = 6e-6, and the mean's 8e-6; five of them.
    assert abs(embeddings.std() - 0.02) < 3e-5
    assert abs(embeddings.mean()) < 4e-5
    for name, info in reader.infos.items():
        if len(info.shape) == 1:
            is_norm = bool(re.search(r"(norm\d?|layernorm)\.weight$", name))
            assert abs(reader.float32(name).mean() - is_norm) < 0.01, name
            assert reader.float32(name).std() > 0, name


def test_the_model_runs_and_says_what_it_is(tiny_folder: Path) -> None:
    model = transformers.AutoModelForImageTextToText.from_pretrained(tiny_folder)
    pixels = torch.rand(1, 1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    ids = torch.tensor([[1, 300, *[49190] * TINY.image_seq_len, 301]])
    with torch.no_grad():
        logits = model(input_ids=ids, pixel_values=pixels).logits
    assert logits.isfinite().all()
    assert logits.std() > 1e-3
    readme = (tiny_folder / "README.md").read_text()
    assert "knows nothing" in readme
    assert "random" in readme


def test_custom_sizes_and_bad_ones(tmp_path: Path) -> None:
    small = replace(TINY, text=replace(TINY.text, num_hidden_layers=1))
    folder = write_random_checkpoint(tmp_path / "custom", small, "bfloat16")
    config, _ = load_configs(folder)
    assert config == small
    CheckpointReader(folder).verify(config)
    with pytest.raises(ConfigError, match="unknown size '70b'"):
        write_random_checkpoint(tmp_path / "x", "70b")
    small_vocab = replace(TINY, text=replace(TINY.text, vocab_size=49_200), eos_token_ids=(2,))
    with pytest.raises(ConfigError, match="vocab_size=49200"):
        write_random_checkpoint(tmp_path / "x", small_vocab)
    with pytest.raises(CheckpointError, match="dtype='int4'"):
        write_random_checkpoint(tmp_path / "x", "tiny", "int4")
    assert not (tmp_path / "x").exists()


def test_the_room_needs_no_torch() -> None:
    script = "import sys, smolvlm.checkpoint; print(sorted({'torch', 'transformers'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.slow
@pytest.mark.parametrize("size", ["256m", "500m"])
def test_full_sizes(tmp_path: Path, size: str) -> None:
    folder = write_random_checkpoint(tmp_path / "out", size, "bfloat16", max_shard_bytes=400_000_000)
    config, _ = load_configs(folder)
    assert config == PRESETS[size]
    CheckpointReader(folder).verify(config)
    kind = transformers.AutoModelForImageTextToText
    model, info = kind.from_pretrained(folder, dtype="auto", output_loading_info=True)
    assert not any(info.values()), info
    reader = CheckpointReader(folder)
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(reader.raw(name), tensor.reshape(-1).view(torch.uint8).numpy())
