"""The official JSON files with every quirk that the published ones have."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import oracle  # noqa: F401
import pytest
from transformers import AutoConfig

from smolvlm.config import PRESETS, ModelConfig, ProcessorConfig, load_configs, preset, processor_preset
from smolvlm.errors import ConfigError

# As the 256M repository publishes it: the vision depth, width of the MLP and norm epsilon left out, a pad id from another
# vocabulary, a perceiver that does not exist.
PUBLISHED_256M: dict[str, Any] = {
    "architectures": ["SmolVLMForConditionalGeneration"],
    "model_type": "smolvlm",
    "image_token_id": 49190,
    "pad_token_id": 128002,
    "scale_factor": 4,
    "tie_word_embeddings": False,
    "use_cache": False,
    "torch_dtype": "float32",
    "transformers_version": "4.50.0.dev0",
    "text_config": {
        "architectures": ["VLlama3ForCausalLM"],
        "model_type": "llama",
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "head_dim": 64,
        "vocab_size": 49280,
        "rope_theta": 100000,
        "rms_norm_eps": 1e-05,
        "max_position_embeddings": 8192,
        "pad_token_id": 2,
        "perceiver_config": {"model_type": "vllama3"},
        "pixel_shuffle_factor": 4,
        "use_resampler": False,
        "is_llama_config": True,
        "rope_interleaved": False,
        "neftune_noise_alpha": 0.0,
        "qk_layer_norms": False,
    },
    "vision_config": {
        "model_type": "smolvlm_vision",
        "hidden_size": 768,
        "image_size": 512,
        "patch_size": 16,
        "num_attention_heads": 12,
        "max_image_size": {"longest_edge": 512},
        "size": {"longest_edge": 2048},
        "tie_word_embeddings": False,
        "use_base_siglip": False,
    },
}
GENERATION = {"bos_token_id": 0, "eos_token_id": 49279, "pad_token_id": 2}


def test_the_published_256m_file_is_the_256m_preset(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        config = ModelConfig.from_dict(PUBLISHED_256M, GENERATION)
    assert config == preset("256m")
    assert config.image_seq_len == 64
    assert config.eos_token_ids == (49279,)
    assert not caplog.records  # every key of a published file is known or knowingly ignored


def test_rope_theta_is_read_from_both_places() -> None:
    text = PUBLISHED_256M["text_config"]
    newer = {k: v for k, v in text.items() if k != "rope_theta"} | {"rope_parameters": {"rope_theta": 273768.0, "rope_type": "default"}}
    assert ModelConfig.from_dict(PUBLISHED_256M | {"text_config": newer}).text.rope_theta == 273768.0
    older = text | {"rope_theta": 130000.0, "rope_scaling": None}
    assert ModelConfig.from_dict(PUBLISHED_256M | {"text_config": older}).text.rope_theta == 130000.0
    scaled = text | {"rope_scaling": {"rope_type": "yarn", "factor": 4}}
    with pytest.raises(ConfigError, match="rope scaling 'yarn'"):
        ModelConfig.from_dict(PUBLISHED_256M | {"text_config": scaled})


def test_first_generation_files() -> None:
    """idefics3: the same graph; an old file may leave out scale_factor, whose default is then 2 (or the text's word)."""
    raw = {k: v for k, v in PUBLISHED_256M.items() if k != "scale_factor"} | {"model_type": "idefics3", "image_token_id": 49153}
    config = ModelConfig.from_dict(raw)
    assert config.model_type == "idefics3"
    assert config.scale_factor == 4  # text_config.pixel_shuffle_factor says so
    raw["text_config"] = {k: v for k, v in raw["text_config"].items() if k != "pixel_shuffle_factor"}
    assert ModelConfig.from_dict(raw).scale_factor == 2


@pytest.mark.parametrize("name", ["256m", "500m", "2.2b"])
def test_transformers_reads_what_we_write(tmp_path: Path, name: str) -> None:
    config = preset(name)
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    theirs = AutoConfig.from_pretrained(tmp_path)
    assert theirs.model_type == "smolvlm"
    for part, ours in (("text_config", config.text), ("vision_config", config.vision)):
        for key, value in vars(ours).items():
            assert getattr(getattr(theirs, part), key, value) == value, key
    assert theirs.text_config.rope_parameters["rope_theta"] == config.text.rope_theta
    assert (theirs.scale_factor, theirs.image_token_id) == (config.scale_factor, 49190)
    (tmp_path / "theirs").mkdir()
    theirs.save_pretrained(tmp_path / "theirs")  # and back: we read what they write
    assert ModelConfig.from_dict(json.loads((tmp_path / "theirs/config.json").read_text())) == config


@pytest.mark.parametrize("name", list(PRESETS))
def test_presets_round_trip(name: str) -> None:
    config = preset(name)
    assert ModelConfig.from_dict(config.to_dict(), config.generation_dict()) == config
    processor = processor_preset(config)
    assert ProcessorConfig.from_dicts(processor.preprocessor_dict(), processor.processor_dict(), config) == processor
    assert {"256m": 64, "500m": 64, "2.2b": 81, "nano": 36}[name] == config.image_seq_len


def test_an_unknown_key_is_reported_by_name(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        ModelConfig.from_dict(PUBLISHED_256M | {"warp_drive": 9})
    assert "warp_drive" in caplog.text


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "llava"}, "model_type='llava'"),
        ({"text_config": None}, "no text_config"),
        ({"text_config": {"hidden_size": 5}}, "num_hidden_layers"),
        ({"text_config": PUBLISHED_256M["text_config"] | {"num_key_value_heads": 2}}, "not a multiple"),
        ({"text_config": PUBLISHED_256M["text_config"] | {"hidden_act": "relu"}}, "'relu'"),
        ({"text_config": PUBLISHED_256M["text_config"] | {"attention_bias": True}}, "attention_bias"),
        ({"text_config": PUBLISHED_256M["text_config"] | {"hidden_size": -1}}, "hidden_size=-1"),
        ({"vision_config": PUBLISHED_256M["vision_config"] | {"hidden_act": "quick_gelu"}}, "'quick_gelu'"),
        ({"scale_factor": 5}, "scale_factor=5 does not divide"),
        ({"image_token_id": 70000}, "outside the vocabulary"),
    ],
)
def test_what_is_no_smolvlm_is_refused(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        ModelConfig.from_dict(PUBLISHED_256M | change)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("config.json", None, "no such file"),
        ("config.json", "{", "cannot be read as JSON"),
        ("config.json", "[1]", "expected a JSON object"),
        ("config.json", json.dumps(PUBLISHED_256M | {"scale_factor": "four"}), "scale_factor"),
        ("config.json", "[" * 100_000, "cannot be read as JSON"),
        ("processor_config.json", '{"image_seq_len": 169}', "image_seq_len=169"),
        ("preprocessor_config.json", '{"max_image_size": {"longest_edge": 384}}', "tiles of 384"),
        ("preprocessor_config.json", '{"image_std": [0, 1, 1]}', "image_std"),
        ("preprocessor_config.json", '{"video_sampling": {"fps": "fast"}}', "wrong kind"),
    ],
)
def test_bad_files_are_named(tmp_path: Path, name: str, content: str | None, says: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(PUBLISHED_256M))
    (tmp_path / name).unlink(missing_ok=True)
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(ConfigError, match=says) as caught:
        load_configs(tmp_path)
    assert str(tmp_path) in str(caught.value)


def test_an_unknown_size_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="256m, 500m, 2.2b, nano"):
        preset("7b")


def test_frames_are_scaled_as_the_reference_reads_the_files(tmp_path: Path) -> None:
    """`size` replaces `video_sampling.video_size` in transformers 5; without `size`, the file's own word holds."""
    from transformers.models.smolvlm.video_processing_smolvlm import SmolVLMVideoProcessor

    published = processor_preset(preset("256m")).preprocessor_dict()
    published["video_sampling"]["video_size"] = {"longest_edge": 512}
    for raw in (published, {k: v for k, v in published.items() if k != "size"}):
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(raw))
        theirs = SmolVLMVideoProcessor.from_pretrained(tmp_path)
        assert ProcessorConfig.from_dicts(raw, {}, preset("256m")).video_longest_edge == theirs.size["longest_edge"]
