"""Checkpoints of the official format with random weights: for the demo, the tests and the benchmarks.

Speed, memory, file format and agreement with other implementations do not depend on what the weights are.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from smolvlm.checkpoint.dtypes import FloatArray
from smolvlm.checkpoint.layout import tensor_shapes
from smolvlm.checkpoint.random_tokenizer import official_tokenizer_json
from smolvlm.checkpoint.writer import MAX_SHARD_BYTES, write_checkpoint
from smolvlm.config import ModelConfig, TextConfig, VisionConfig, preset, processor_preset
from smolvlm.errors import ConfigError
from smolvlm.families import SMOLVLM

# Small enough to write in a second or two and to run anywhere; every part of the graph is there.
TINY = ModelConfig(
    text=TextConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2, head_dim=32),
    vision=VisionConfig(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2, image_size=64, patch_size=16),
    scale_factor=2,
)

TINY_TRAINED = 4_000  # ids of its tokenizer that text encodes to; a custom size has as many

CHAT_TEMPLATE = SMOLVLM.prompt.template

_README = """# A SmolVLM2 checkpoint with random weights

This model knows nothing. Its weights were drawn at random (size {size}, seed {seed}, {dtype}); its answers are
nonsense, whatever the picture and the question. It has the official SmolVLM2 file format and stands in for a trained
checkpoint where only the format, the speed or the memory matters: in demonstrations, tests and benchmarks.
"""

# The reference's `initializer_range`. Biases and the norms' distance from one are drawn too, smaller: with exact zeros
# and ones, a reader that dropped a bias or swapped two norms would go unnoticed.
_WEIGHT_STD = 0.02
_SMALL_STD = 0.01


def write_random_checkpoint(
    out: str | Path,
    size: str | ModelConfig = "tiny",
    dtype: str = "float32",
    seed: int = 0,
    *,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
) -> Path:
    """Write a checkpoint of official format with random weights and return its folder.

    `size`: "tiny", a preset of `config.PRESETS` ("256m", ...), or a configuration with the official vocabulary of at
    least 49,280. `dtype`: "float32", "bfloat16" or "float16". The same arguments give the same bytes of weights.
    Raises ConfigError for an unknown size, CheckpointError as `write_checkpoint` does.
    """
    if isinstance(size, str):
        config, size_name = (TINY if size == "tiny" else preset(size)), size
    else:
        config, size_name = size, "custom"
    if config.text.vocab_size < ModelConfig().text.vocab_size:
        raise ConfigError(
            f"vocab_size={config.text.vocab_size} is below the official vocabulary of "
            f"{ModelConfig().text.vocab_size}, which a random checkpoint uses."
        )
    return write_checkpoint(
        out,
        random_tensors(config, seed),
        config,
        processor_preset(config),
        official_tokenizer_json(*((TINY_TRAINED,) if size_name in ("tiny", "custom") else ())),
        CHAT_TEMPLATE,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
        overwrite=overwrite,
        extra_files={"README.md": _README.format(size=size_name, seed=seed, dtype=dtype)},
    )


def random_tensors(config: ModelConfig, seed: int = 0) -> Iterator[tuple[str, FloatArray]]:
    """(name, float32 array) of every tensor, one at a time; the values depend on seed, name and shape only."""
    for name, shape in tensor_shapes(config).items():
        generator = np.random.default_rng([seed, zlib.crc32(name.encode())])
        values = generator.standard_normal(shape, dtype=np.float32)
        if len(shape) > 1:
            yield name, values * np.float32(_WEIGHT_STD)
        else:
            is_norm = name.endswith("norm.weight") or ("layer_norm" in name and name.endswith(".weight"))
            yield name, values * np.float32(_SMALL_STD) + np.float32(1.0 if is_norm else 0.0)
