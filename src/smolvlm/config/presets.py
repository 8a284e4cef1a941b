"""The published sizes by their short names."""

from __future__ import annotations

from smolvlm.config.model import ModelConfig, TextConfig, VisionConfig
from smolvlm.config.processor import ProcessorConfig
from smolvlm.errors import ConfigError


def _preset(text: TextConfig, vision: VisionConfig, scale_factor: int) -> ModelConfig:
    return ModelConfig(text=text, vision=vision, scale_factor=scale_factor)


PRESETS: dict[str, ModelConfig] = {
    "256m": ModelConfig(),
    "500m": _preset(
        TextConfig(hidden_size=960, intermediate_size=2560, num_hidden_layers=32, num_attention_heads=15, num_key_value_heads=5),
        VisionConfig(),
        4,
    ),
    "2.2b": _preset(
        TextConfig(
            hidden_size=2048,
            intermediate_size=8192,
            num_hidden_layers=24,
            num_attention_heads=32,
            num_key_value_heads=32,
            rope_theta=130_000.0,
        ),
        VisionConfig(hidden_size=1152, intermediate_size=4304, num_hidden_layers=27, num_attention_heads=16, image_size=384, patch_size=14),
        3,
    ),
    # The model that this package trains and ships: 36 tokens a tile of 192, a vocabulary of its own.
    "nano": ModelConfig(
        text=TextConfig(
            hidden_size=256,
            intermediate_size=704,
            num_hidden_layers=6,
            num_attention_heads=4,
            num_key_value_heads=2,
            vocab_size=1536,
            rope_theta=10_000.0,
            max_position_embeddings=2048,
            eos_token_id=1535,
        ),
        vision=VisionConfig(hidden_size=256, intermediate_size=1024, num_hidden_layers=5, num_attention_heads=4, image_size=192),
        scale_factor=2,
        image_token_id=1526,
        eos_token_ids=(1535,),
    ),
}


def preset(name: str) -> ModelConfig:
    """The configuration of a published size by its short name, e.g. `preset("256m")`."""
    if name not in PRESETS:
        raise ConfigError(f"unknown size {name!r}; the sizes are {', '.join(PRESETS)}.")
    return PRESETS[name]


def processor_preset(model: ModelConfig) -> ProcessorConfig:
    """The pixel settings that the published checkpoints pair with a model of this tile size."""
    tile = model.vision.image_size
    return ProcessorConfig(image_seq_len=model.image_seq_len, tile_size=tile, longest_edge=4 * tile, video_longest_edge=4 * tile)
