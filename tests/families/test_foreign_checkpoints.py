"""Other models whose files look like ours: refused by the key that tells them apart, on both engines and in the converter."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import smolvlm
from smolvlm.checkpoint import CheckpointReader, write_checkpoint, write_random_checkpoint
from smolvlm.checkpoint.random import CHAT_TEMPLATE, TINY, random_tensors
from smolvlm.checkpoint.random_tokenizer import official_tokenizer_json
from smolvlm.config import ModelConfig, load_configs, processor_preset
from smolvlm.engines.native_quantize import quantize
from smolvlm.engines.select import make_engine
from smolvlm.errors import ConfigError
from smolvlm.families import FAMILIES, family_of
from smolvlm.families.tensors import EMBED_TOKENS, LM_HEAD

Change = dict[str, Any]
DINOV2 = {
    "model_type": "dinov2",
    "hidden_act": "gelu",
    "mlp_ratio": 4,
    "qkv_bias": True,
    "layerscale_value": 1.0,
    "use_swiglu_ffn": False,
    "num_channels": 3,
}
GRANITE = {"embedding_multiplier": 12.0, "attention_multiplier": 0.015625, "residual_multiplier": 0.22, "logits_scaling": 8.0}

# Section, what it is changed to, and what the error names. Layers: TINY has three in its decoder.
FOREIGN: list[tuple[str, str, Change, str]] = [
    (
        "SmolLM3",
        "text_config",
        {"model_type": "smollm3", "no_rope_layers": [1, 1, 0]},
        r"text_config\.model_type='smollm3'; expected 'llama'",
    ),
    (
        "SmolLM3 as llama",
        "text_config",
        {"no_rope_layers": [1, 1, 0]},
        r"text_config\.no_rope_layers=\[1, 1, 0\]; expected a list of 1 only",
    ),
    ("SmolLM3's interval", "text_config", {"no_rope_layer_interval": 4}, r"no_rope_layer_interval=4; expected null"),
    ("Granite", "text_config", {"model_type": "granite", **GRANITE}, "model_type='granite'"),
    *((f"Granite's {key}", "text_config", {key: value}, rf"text_config\.{key}={value}; expected") for key, value in GRANITE.items()),
    ("Qwen2", "text_config", {"model_type": "qwen2"}, "model_type='qwen2'"),
    ("Qwen3's norms", "text_config", {"use_qk_norm": True}, "use_qk_norm=True; expected false"),
    ("Mistral's window", "text_config", {"sliding_window": 4096}, r"sliding_window=4,096; expected null"),
    ("a window in use", "text_config", {"sliding_window": 64, "use_sliding_window": True}, "use_sliding_window=True"),
    (
        "windows by layer",
        "text_config",
        {"layer_types": ["full_attention", "sliding_attention", "full_attention"]},
        "layer_types=.*expected a list of 'full_attention' only",
    ),
    ("all windows", "text_config", {"layer_types": ["sliding_attention"] * 3}, "layer_types="),
    ("Mamba", "text_config", {"model_type": "mamba"}, "model_type='mamba'"),
    ("Gemma's caps", "text_config", {"final_logit_softcapping": 30.0}, "final_logit_softcapping=30.0; expected null"),
    ("Phi's rotary part", "text_config", {"partial_rotary_factor": 0.5}, "partial_rotary_factor=0.5; expected 1"),
    ("experts", "text_config", {"num_local_experts": 8}, "num_local_experts=8; expected 1"),
    (
        "a rotary part, newer",
        "text_config",
        {"rope_parameters": {"rope_type": "default", "rope_theta": 1e5, "partial_rotary_factor": 0.25}},
        r"rope_parameters\.partial_rotary_factor=0.25; expected 1",
    ),
    (
        "RoPE by layer",
        "text_config",
        {
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 1e6},
                "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
            }
        },
        r"rope_parameters\.full_attention=.*; expected null",
    ),
    ("yarn", "text_config", {"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}, "rope scaling 'yarn'"),
    ("biases", "text_config", {"attention_bias": True}, "attention_bias=True; expected false"),
    ("DINOv2", "vision_config", DINOV2, r"vision_config\.model_type='dinov2'; expected one of smolvlm_vision"),
    ("one channel", "vision_config", {"num_channels": 1}, "num_channels=1; expected 3"),
    ("CLIP's activation", "vision_config", {"hidden_act": "quick_gelu"}, "hidden_act='quick_gelu'"),
    ("registers", "vision_config", {"num_register_tokens": 4}, "num_register_tokens=4"),
    ("Idefics2", "", {"model_type": "idefics2"}, r"config\.json: model_type='idefics2'; expected one of smolvlm, idefics3"),
    ("a shuffle of 3 over 4 patches", "", {"scale_factor": 3}, "scale_factor=3 does not divide the 4 patches"),
    ("a pad token below zero", "", {"pad_token_id": -7}, r"config\.json: pad_token_id=-7; expected a whole number from 0"),
    *(
        (method, "", {"quantization_config": {"quant_method": method, "bits": 4}}, "quantization_config=.*; expected null: weights")
        for method in ("gptq", "awq", "bitsandbytes")
    ),
]


def tiny_with(folder: Path, section: str, change: Change, *, file: str = "config.json") -> Path:
    raw = json.loads((folder / file).read_text())
    (raw[section] if section else raw).update(change)
    (folder / file).write_text(json.dumps(raw))
    return folder


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_checkpoint(tmp_path_factory.mktemp("families") / "tiny")


@pytest.fixture
def tiny(written: Path, tmp_path: Path) -> Path:
    """A tiny checkpoint whose JSON files may be rewritten."""
    for path in written.iterdir():
        if path.suffix == ".json":
            shutil.copy(path, tmp_path)
        else:
            (tmp_path / path.name).symlink_to(path)
    return tmp_path


def to_native(folder: Path) -> None:
    quantize(folder, folder.parent / "q8", dtype="q8")


DOORS: dict[str, Callable[[Path], Any]] = {
    "native": lambda folder: smolvlm.load(folder, engine="native", dtype="bfloat16"),
    "torch": lambda folder: smolvlm.load(folder, engine="torch", dtype="float32"),
    "converter": to_native,
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("section", "change", "says"), [case[1:] for case in FOREIGN], ids=[case[0] for case in FOREIGN])
def test_a_foreign_checkpoint_is_refused_by_name(tiny: Path, door: str, section: str, change: Change, says: str) -> None:
    tiny_with(tiny, section, change)
    with pytest.raises(ConfigError, match=says) as caught:
        DOORS[door](tiny)
    assert str(tiny) in str(caught.value)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("text_config", {"no_rope_layers": [1, 1, 1], "layer_types": ["full_attention"] * 3, "sliding_window": None}),
        ("text_config", {"embedding_multiplier": 1.0, "residual_multiplier": 1, "partial_rotary_factor": 1.0}),
        ("text_config", {"sliding_window": 4096, "use_sliding_window": False}),
        ("text_config", {"attention_bias": False, "mlp_bias": None, "num_local_experts": 1}),
        ("vision_config", {"model_type": "idefics3", "num_channels": 3, "hidden_act": "gelu_pytorch_tanh"}),
        ("", {"pad_token_id": 128002, "quantization_config": None}),
    ],
)
def test_the_same_keys_with_this_graphs_own_values_load(tiny: Path, section: str, change: Change, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert load_configs(tiny_with(tiny, section, change))[0] == TINY
    assert not caplog.records


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"temperature": "hot"}, r"generation_config\.json: temperature='hot'; expected a number"),
        ({"temperature": -1}, "temperature=-1"),
        ({"top_p": 1.5}, "top_p=1.5"),
        ({"top_k": -5}, "top_k=-5"),
        ({"do_sample": "yes"}, "do_sample='yes'; expected true or false"),
        ({"repetition_penalty": [1]}, "repetition_penalty="),
        ({"max_new_tokens": 1e9}, "max_new_tokens="),
    ],
)
def test_generation_settings_that_are_no_settings(tiny: Path, change: Change, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        load_configs(tiny_with(tiny, "", change, file="generation_config.json"))


@pytest.mark.parametrize("kind", ["Idefics2ImageProcessor", "SiglipImageProcessor"])
def test_another_image_processor_is_refused(tiny: Path, kind: str) -> None:
    tiny_with(tiny, "", {"image_processor_type": kind}, file="preprocessor_config.json")
    with pytest.raises(ConfigError, match=f"image_processor_type='{kind}'; expected one of SmolVLMImageProcessor, Idefics3"):
        load_configs(tiny)
    for accepted in ("SmolVLMImageProcessorFast", "Idefics3ImageProcessor", "Idefics3ImageProcessorPil"):
        load_configs(tiny_with(tiny, "", {"image_processor_type": accepted}, file="preprocessor_config.json"))


def test_unknown_generation_settings_are_reported(tiny: Path, caplog: pytest.LogCaptureFixture) -> None:
    tiny_with(tiny, "", {"temperature": 0.7, "do_sample": True, "warp": 9}, file="generation_config.json")
    with caplog.at_level(logging.WARNING):
        load_configs(tiny)
    assert [r.message for r in caplog.records] == ["generation_config.json: unknown keys are not used: warp"]


def head_beside_ties(folder: Path, *, differs: bool) -> Path:
    """A checkpoint that says its embeddings are tied, with a head of its own beside them."""
    tensors = dict(random_tensors(TINY, 5))
    if not differs:
        tensors[LM_HEAD] = tensors[EMBED_TOKENS]
    write_checkpoint(folder, tensors, TINY, processor_preset(TINY), official_tokenizer_json(), CHAT_TEMPLATE)
    return tiny_with(folder, "", {"tie_word_embeddings": True})


IDS = [1, 11126, 42, 1812, 314, 260, 3575]


def logits(folder: Path, engine: str) -> np.ndarray:
    config = load_configs(folder)[0]
    made = make_engine(folder, config, engine=engine, dtype="bfloat16" if engine == "native" else "float32")
    return made.prefill(made.open(64), IDS, logits_to_keep=len(IDS))


def reference_logits(folder: Path) -> np.ndarray:
    import oracle  # noqa: F401
    import torch
    from transformers import SmolVLMForConditionalGeneration

    with torch.inference_mode():
        return SmolVLMForConditionalGeneration.from_pretrained(folder).eval()(torch.tensor([IDS])).logits[0].numpy()


@pytest.mark.parametrize("differs", [True, False])
def test_a_head_beside_tied_embeddings_is_used_where_it_differs(tmp_path: Path, differs: bool, caplog: pytest.LogCaptureFixture) -> None:
    """As `transformers` does: it ties only what is equal. Both engines, the converter and the saved copy agree."""
    folder = head_beside_ties(tmp_path / "tied", differs=differs)
    expected = reference_logits(folder)
    with caplog.at_level(logging.WARNING):
        assert np.allclose(logits(folder, "torch"), expected, atol=1e-4)
    assert ("lm_head.weight differs from" in caplog.text) is differs
    near = logits(folder, "native")
    assert np.abs(near - expected).max() < 0.05 < np.abs(expected).max()
    quantize(folder, tmp_path / "native", dtype="bfloat16")
    assert np.array_equal(logits(tmp_path / "native", "native"), near)
    with CheckpointReader(folder) as reader:
        assert reader.verify(load_configs(folder)[0]).tie_word_embeddings is not differs


def test_a_family_is_told_by_type_and_tokens() -> None:
    assert [family.name for family in FAMILIES] == ["smolvlm", "docling", "idefics3"]
    assert family_of("smolvlm").name == family_of("smolvlm", {"<doctag>", "<otsl>"}).name == "smolvlm"
    assert family_of("idefics3").name == family_of("idefics3", {"<image>", "<otsl>"}).name == "idefics3"
    assert family_of("idefics3", {"<doctag>", "<otsl>", "<image>"}).name == "docling"


@pytest.mark.parametrize("kind", ["smolvlm", "idefics3"])
def test_every_familys_own_file_is_read_back(kind: str) -> None:
    import dataclasses

    config = dataclasses.replace(TINY, model_type=kind)
    assert ModelConfig.from_dict(config.to_dict(), config.generation_dict()) == config
