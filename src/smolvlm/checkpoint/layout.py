"""The official tensor names of a SmolVLM checkpoint and the shape of each, from the configuration alone.

Source: the published files' own headers (`model.safetensors` of SmolVLM2-256M and 500M); first-generation SmolVLM
(`model_type: idefics3`) has the same names. Order: as the reference model lists its parameters.
"""

from __future__ import annotations

import re
from dataclasses import fields
from typing import TypeAlias

from smolvlm.config import ModelConfig, TextConfig, VisionConfig
from smolvlm.errors import ConfigError

Shapes: TypeAlias = dict[str, tuple[int, ...]]

LM_HEAD = "lm_head.weight"
EMBED_TOKENS = "model.text_model.embed_tokens.weight"

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
    vision, text = config.vision, config.text
    shapes = _vision_shapes(vision)
    shapes["model.connector.modality_projection.proj.weight"] = (
        text.hidden_size,
        vision.hidden_size * config.scale_factor**2,
    )
    shapes |= _text_shapes(text)
    if not config.tie_word_embeddings:
        shapes[LM_HEAD] = (text.vocab_size, text.hidden_size)
    return shapes


def is_tolerated(name: str) -> bool:
    """Whether a name is one of the leftovers of old writers that may stand in a file and is not read."""
    return any(pattern.fullmatch(name) for pattern in TOLERATED)


def _vision_shapes(vision: VisionConfig) -> Shapes:
    hidden, inner, root = vision.hidden_size, vision.intermediate_size, "model.vision_model."
    shapes: Shapes = {
        f"{root}embeddings.patch_embedding.weight": (hidden, 3, vision.patch_size, vision.patch_size),
        f"{root}embeddings.patch_embedding.bias": (hidden,),
        f"{root}embeddings.position_embedding.weight": (vision.num_patches, hidden),
    }
    for i in range(vision.num_hidden_layers):
        layer = f"{root}encoder.layers.{i}."
        for name in ("k_proj", "v_proj", "q_proj", "out_proj"):  # the reference declares k and v before q
            shapes |= _with_bias(f"{layer}self_attn.{name}", hidden, hidden)
        shapes |= _with_bias(f"{layer}layer_norm1", hidden)
        shapes |= _with_bias(f"{layer}mlp.fc1", inner, hidden)
        shapes |= _with_bias(f"{layer}mlp.fc2", hidden, inner)
        shapes |= _with_bias(f"{layer}layer_norm2", hidden)
    return shapes | _with_bias(f"{root}post_layernorm", hidden)


def _text_shapes(text: TextConfig) -> Shapes:
    hidden, inner, root = text.hidden_size, text.intermediate_size, "model.text_model."
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    shapes: Shapes = {EMBED_TOKENS: (text.vocab_size, hidden)}
    for i in range(text.num_hidden_layers):
        layer = f"{root}layers.{i}."
        shapes[f"{layer}self_attn.q_proj.weight"] = (queries, hidden)
        shapes[f"{layer}self_attn.k_proj.weight"] = (keys, hidden)
        shapes[f"{layer}self_attn.v_proj.weight"] = (keys, hidden)
        shapes[f"{layer}self_attn.o_proj.weight"] = (hidden, queries)
        shapes[f"{layer}mlp.gate_proj.weight"] = (inner, hidden)
        shapes[f"{layer}mlp.up_proj.weight"] = (inner, hidden)
        shapes[f"{layer}mlp.down_proj.weight"] = (hidden, inner)
        shapes[f"{layer}input_layernorm.weight"] = (hidden,)
        shapes[f"{layer}post_attention_layernorm.weight"] = (hidden,)
    shapes[f"{root}norm.weight"] = (hidden,)
    return shapes


def _with_bias(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def _require_whole(part: VisionConfig | TextConfig) -> None:
    """JSON has one kind of number: `"hidden_size": 576.5` passes every check for being positive."""
    where = "vision_config" if isinstance(part, VisionConfig) else "text_config"
    for field in fields(part):
        value = getattr(part, field.name)
        if field.type == "int" and type(value) is not int:
            raise ConfigError(f"{where}: {field.name}={value!r} must be a whole number.")
    if part.num_hidden_layers > _MAX_LAYERS:
        raise ConfigError(f"{where}: num_hidden_layers={part.num_hidden_layers} is beyond any SmolVLM "
                          f"(at most {_MAX_LAYERS}).")  # fmt: skip
