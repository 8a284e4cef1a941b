"""Checkpoints from strangers: whatever a JSON file says, the model works with finite logits or one of our errors names it."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import smolvlm
from helpers_hostile import NANO, Case, all_cases, outcomes
from smolvlm.checkpoint.adapter import Adapter
from smolvlm.config import load_configs
from smolvlm.errors import AdapterError, CheckpointError, ConfigError, SmolVLMError
from smolvlm.prompt import ChatTemplate, PromptTokenizer


def assert_good(cases: list[Case]) -> None:
    bad = {case: outcome for case, outcome in outcomes(cases).items() if not outcome.is_good}
    assert not bad, "\n".join(f"{c.file} {c.path} = {c.value[:60]}: {o}" for c, o in bad.items())


def test_a_sample_of_changed_values_works_or_is_refused() -> None:
    """Three of each file; the slow test below takes them all."""
    cases = all_cases()
    draw = random.Random(0)
    assert_good([case for name in sorted({c.file for c in cases}) for case in draw.sample([c for c in cases if c.file == name], 3)])


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_every_changed_value_works_or_is_refused(part: int) -> None:
    assert_good(all_cases()[part::8])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """nano, with JSON files that may be rewritten."""
    for file in NANO.iterdir():
        if file.suffix == ".json":
            shutil.copy(file, tmp_path)
        else:
            (tmp_path / file.name).symlink_to(file)
    return tmp_path


def rewrite(path: Path, change: Callable[[Any], None]) -> None:
    raw = json.loads(path.read_text(encoding="utf-8"))
    change(raw)
    path.write_text(json.dumps(raw), encoding="utf-8")


@pytest.mark.parametrize(
    ("file", "path", "value", "says"),
    [
        ("config.json", "text_config.hidden_size", 256.0, r"config\.json: text_config\.hidden_size=256\.0; expected a whole number"),
        ("config.json", "text_config.hidden_size", True, "hidden_size=True"),
        ("config.json", "text_config.max_position_embeddings", 2**31, "max_position_embeddings=2,147,483,648"),
        ("config.json", "text_config.rope_theta", "big", "rope_theta='big'"),
        ("config.json", "text_config.rope_parameters", [1], r"rope_parameters=\[1\]; expected a JSON object"),
        ("config.json", "text_config.rms_norm_eps", 1e308, "rms_norm_eps=1e"),
        ("config.json", "text_config.bos_token_id", 1536, "bos_token_id=1,536 is outside the vocabulary"),
        ("config.json", "tie_word_embeddings", "yes", "tie_word_embeddings='yes'"),
        ("config.json", "scale_factor", 0, "scale_factor=0"),
        ("config.json", "image_token_id", 5, "<image> is 1472, but config.json says image_token_id=5"),
        ("generation_config.json", "eos_token_id", 1536, r"generation_config\.json: eos_token_id=1,536 is outside"),
        ("generation_config.json", "pad_token_id", 2**63, r"generation_config\.json: pad_token_id=.* is outside"),
        ("generation_config.json", "eos_token_id", [], r"eos_token_id=\[\]"),
        ("generation_config.json", "eos_token_id", [1535, None], "eos_token_id="),
        ("preprocessor_config.json", "image_mean", [0.5, 0.5], "image_mean=.*a list of 3 numbers"),
        ("preprocessor_config.json", "image_std", [0.5, 0.5, 1e-300], "image_std=1e-300"),
        ("preprocessor_config.json", "rescale_factor", 1e30, "rescale_factor"),
        ("preprocessor_config.json", "size", {"height": 192}, "longest_edge"),
        ("preprocessor_config.json", "size", 192, "size=192; expected a JSON object"),
        ("preprocessor_config.json", "video_sampling.max_frames", 10**9, r"video_sampling\.max_frames=1,000,000,000"),
        ("preprocessor_config.json", "do_image_splitting", 1, "do_image_splitting=1"),
        ("processor_config.json", "image_seq_len", "36", "image_seq_len='36'"),
        ("tokenizer_config.json", "bos_token", 7, "bos_token"),
    ],
)
def test_the_file_the_key_the_value_and_what_was_expected(folder: Path, file: str, path: str, value: Any, says: str) -> None:
    def change(raw: Any) -> None:
        *above, last = path.split(".")
        for key in above:
            raw = raw[key]
        raw[last] = value

    rewrite(folder / file, change)
    with pytest.raises((ConfigError, CheckpointError), match=says):
        smolvlm.load(folder, engine="native")


def nested(depth: int) -> dict[str, Any]:
    part: dict[str, Any] = {"type": "Digits", "individual_digits": True}
    for _ in range(depth):
        part = {"type": "Sequence", "pretokenizers": [part]}
    return part


def token(number: int, content: str) -> dict[str, Any]:
    return {"id": number, "content": content, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}


TOKENIZER_FAULTS: list[tuple[str, Any, str]] = [
    ("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}, "normalizer='Precompiled'"),
    ("normalizer", {"type": "Replace", "pattern": {"Regex": "(a+)+$"}, "content": ""}, "normalizer='Replace'"),
    ("pre_tokenizer", {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}, "'Split'"),
    ("pre_tokenizer", nested(100), "pretokenizers|Sequence"),
    ("pre_tokenizer", {"type": "Sequence", "pretokenizers": []}, "pretokenizers"),
    ("pre_tokenizer", {"type": "Digits", "individual_digits": True}, "one ByteLevel"),
    ("pre_tokenizer", None, "Digits, ByteLevel"),
    ("decoder", {"type": "WordPiece", "prefix": "##", "cleanup": True}, "decoder='WordPiece'"),
    ("decoder", None, "decoder"),
    ("post_processor", {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 2]}, "post_processor='BertProcessing'"),
    ("model", {"type": "Unigram", "unk_id": 99, "vocab": [["a", 0.0]]}, "model.type='Unigram'"),
    ("model", {"type": "BPE", "vocab": {}, "merges": []}, "model.vocab"),
    ("model", {"type": "BPE", "vocab": {"a": 0, "b": 0}, "merges": []}, "two tokens with one id"),
    ("model", {"type": "BPE", "vocab": {"a": 2**40}, "merges": []}, "vocab.a="),
    ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": ["a z"]}, r"merges\[0\]='a z'"),
    ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [["a"]]}, r"merges\[0\]"),
    ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "dropout": 0.9}, "dropout=0.9"),
    ("model", {"type": "BPE", "vocab": {"a": 0}, "merges": [], "unk_token": "zz"}, "unk_token='zz'"),
    ("added_tokens", [token(i, f"<t{i}>") for i in range(5000)], "at most 4,096"),
    ("added_tokens", [token(5, "<a>"), token(5, "<b>")], "two tokens with one id"),
    ("added_tokens", [token(5, "<a>"), token(6, "<a>")], "two tokens with one content"),
    ("added_tokens", [token(-1, "<a>")], r"added_tokens\[0\]\.id=-1"),
    ("added_tokens", [token(5, "")], "an id and a text"),
    ("added_tokens", [token(5, "x" * 10_000)], r"content="),
    ("added_tokens", ["<image>"], r"added_tokens\[0\]"),
]


@pytest.mark.parametrize(("key", "value", "says"), TOKENIZER_FAULTS, ids=range(len(TOKENIZER_FAULTS)))
def test_a_tokenizer_with_parts_that_the_family_does_not_have(folder: Path, key: str, value: Any, says: str) -> None:
    """Refused before the library sees them: some would panic, run without end, or end the process."""
    rewrite(folder / "tokenizer.json", lambda raw: raw.update({key: value}))
    with pytest.raises(CheckpointError, match=says) as caught:
        PromptTokenizer.from_folder(folder)
    assert str(folder / "tokenizer.json") in str(caught.value)
    assert len(str(caught.value)) < 600


def test_a_tokenizer_as_transformers_writes_it_is_the_same(folder: Path) -> None:
    """It adds a post-processor that adds nothing, and moves the pixel settings into `processor_config.json`."""
    from oracle import transformers

    saved = folder / "saved"
    transformers.AutoProcessor.from_pretrained(NANO).save_pretrained(saved)
    assert json.loads((saved / "tokenizer.json").read_text())["post_processor"] is not None
    assert not (saved / "preprocessor_config.json").exists()
    text = "How many 12 shapes, \u00e9 <image>?"
    assert PromptTokenizer.from_folder(saved).encode_text(text) == PromptTokenizer.from_folder(NANO).encode_text(text)
    shutil.copy(NANO / "config.json", saved)
    assert load_configs(saved)[1] == load_configs(NANO)[1]


def test_what_is_no_file_does_not_keep_anybody_waiting(folder: Path) -> None:
    for name in ("config.json", "tokenizer.json", "chat_template.json", "generation_config.json"):
        kept = (folder / name).read_bytes()
        for make in (os.mkfifo, lambda path: os.symlink("/dev/zero", path)):
            (folder / name).unlink()
            make(folder / name)
            with pytest.raises(SmolVLMError, match="not a regular file|folder without config"):
                smolvlm.load(folder)
        (folder / name).unlink()
        (folder / name).write_bytes(kept)


@pytest.mark.parametrize(
    "text", ['{"a": NaN}', '{"a": -Infinity}', '{"a": 1e999}', '{"a": 1, "a": 2}', "1" * 5000, '{"a":' * 5000, "\ufeff{}", '{"a": 01}']
)
@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_what_is_no_json_is_refused(folder: Path, file: str, text: str) -> None:
    (folder / file).write_text(text)
    with pytest.raises((ConfigError, CheckpointError), match=file.replace(".", r"\.")):
        smolvlm.load(folder)


def test_a_file_beyond_any_size_is_not_read(folder: Path) -> None:
    with (folder / "config.json").open("r+b") as file:
        file.truncate(1 << 40)  # a hole: it takes no space on the disk
    with pytest.raises(ConfigError, match="over 16 MiB"):
        smolvlm.load(folder)


@pytest.mark.parametrize("value", [[{"name": ["default"], "template": "x"}], [{"name": {}}], {"default": 3}, 7, [7], {}])
def test_a_chat_template_of_another_kind(folder: Path, value: Any) -> None:
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": value}))
    with pytest.raises(CheckpointError, match="chat_template"):
        ChatTemplate.from_folder(folder)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"lora_alpha": 1e300}, "lora_alpha=1e"),
        ({"lora_alpha": "much"}, "lora_alpha='much'"),
        ({"lora_alpha": True}, "lora_alpha"),
        ({"lora_alpha": 10**400}, "lora_alpha=a number of"),
        ({"r": -4}, "r=-4"),
        ({"r": "4"}, "r='4'"),
        ({"use_dora": "yes"}, "use_dora='yes'"),
        ({"use_rslora": 1}, "use_rslora=1"),
        ({"alpha_pattern": [1]}, "alpha_pattern"),
        ({"rank_pattern": 3}, "rank_pattern"),
        ({"base_model_name_or_path": 5}, "base_model_name_or_path"),
    ],
)
def test_an_adapter_whose_settings_are_no_settings(tmp_path: Path, change: dict[str, Any], says: str) -> None:
    (tmp_path / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "r": 4, "lora_alpha": 8} | change))
    with pytest.raises(AdapterError, match=says):
        Adapter(tmp_path)
