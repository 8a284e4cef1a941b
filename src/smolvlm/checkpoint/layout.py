"""The official tensor names of a checkpoint and the shape of each, from the configuration and the families' table."""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TypeAlias

from smolvlm.config import ModelConfig, TextConfig, VisionConfig
from smolvlm.errors import ConfigError
from smolvlm.families.tensors import LM_HEAD, tensors

Shapes: TypeAlias = dict[str, tuple[int, ...]]

# Constant buffers that old writers stored as if they were weights. They follow from the configuration: never read.
TOLERATED = (
    re.compile(r"model\.vision_model\.embeddings\.position_ids"),
    re.compile(r"model\.text_model\.(layers\.\d+\.self_attn\.)?rotary_emb\.inv_freq"),
)

# The largest published model has 27 layers; a file that asks for millions would fill the memory with names.
_MAX_LAYERS = 1024


def tensor_shapes(config: ModelConfig) -> Shapes:
    """Every tensor that a checkpoint of this configuration holds, name -> shape, in the official order.

    `lm_head.weight` is left out when `tie_word_embeddings` is set: the head is then the embedding itself. Linear
    weights are (out, in), the patch embedding is (hidden, 3, patch, patch). Raises ConfigError for dimensions that are
    not whole numbers or beyond any SmolVLM.
    """
    for part in (config.vision, config.text):
        _require_whole(part)
    shapes = {tensor.name: tensor.shape for tensor in tensors(tensor_sizes(config))}
    if config.tie_word_embeddings:
        del shapes[LM_HEAD]
    return shapes


def is_tolerated(name: str) -> bool:
    """Whether a name is one of the leftovers of old writers that may stand in a file and is not read."""
    return any(pattern.fullmatch(name) for pattern in TOLERATED)


def tensor_sizes(config: ModelConfig) -> dict[str, int]:
    """The sizes that the families' tensor table is written in."""
    vision, text = config.vision, config.text
    return {
        "channels": 3,
        "patch": vision.patch_size,
        "patches": vision.num_patches,
        "vision": vision.hidden_size,
        "vision.mlp": vision.intermediate_size,
        "vision.layers": vision.num_hidden_layers,
        "shuffled": vision.hidden_size * config.scale_factor**2,
        "text": text.hidden_size,
        "text.mlp": text.intermediate_size,
        "text.layers": text.num_hidden_layers,
        "queries": text.num_attention_heads * text.head_dim,
        "keys": text.num_key_value_heads * text.head_dim,
        "vocab": text.vocab_size,
    }


def _require_whole(part: VisionConfig | TextConfig) -> None:
    """JSON has one kind of number: `"hidden_size": 576.5` passes every check for being positive."""
    where = "vision_config" if isinstance(part, VisionConfig) else "text_config"
    for field in fields(part):
        value = getattr(part, field.name)
        if field.type == "int" and type(value) is not int:
            raise ConfigError(f"{where}: {field.name}={value!r} must be a whole number.")
    if part.num_hidden_layers > _MAX_LAYERS:
        raise ConfigError(f"{where}: num_hidden_layers={part.num_hidden_layers} is beyond any SmolVLM (at most {_MAX_LAYERS}).")
