"""The one table of tensors against its three readers: the torch graph, the reference model, the compiled engine."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
import torch

from smolvlm.checkpoint import tensor_shapes
from smolvlm.checkpoint.random import TINY
from smolvlm.config import ModelConfig, VisionConfig, preset
from smolvlm.engines.native_weights import parts
from smolvlm.families.tensors import EMBED_TOKENS, LM_HEAD
from smolvlm.nn.model import SmolVLMForConditionalGeneration

# Idefics3-8B's layout in small: 26 patches a side, 13 x 13 tokens a tile, grouped heads.
IDEFICS3_8B = dataclasses.replace(
    TINY, model_type="idefics3", scale_factor=2, vision=dataclasses.replace(TINY.vision, image_size=364, patch_size=14)
)
CONFIGS = {"tiny": TINY, "nano": preset("nano"), "tied": dataclasses.replace(TINY, tie_word_embeddings=True), "idefics3": IDEFICS3_8B}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_torch_graph_has_these_names_and_shapes(config: ModelConfig) -> None:
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(config)
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    if config.tie_word_embeddings:
        assert found.pop(LM_HEAD) == found[EMBED_TOKENS]
    assert found == tensor_shapes(config)


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_the_compiled_engine_has_these_parts(config: ModelConfig) -> None:
    from smolvlm.engines import _native

    vision = dict(vars(config.vision))
    engine = _native.Engine(
        vision, dict(vars(config.text)), config.scale_factor, config.image_token_id, "bf16", "bf16", "bf16", "bf16", 1, ""
    )
    table = list(parts(config))
    assert sorted(engine.matrices) == sorted(part.name for part in table if part.kind == "matrix")
    assert sorted(engine.vectors) == sorted(part.name for part in table if part.kind == "vector")
    assert [part.name for part in table if part.kind == "embedding"] == ["embedding"]


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
def test_every_tensor_is_in_one_part(config: ModelConfig) -> None:
    used = Counter(name for part in parts(config) for name in part.tensors)
    assert used.keys() == tensor_shapes(config).keys()
    twice = {name for name, times in used.items() if times > 1}
    assert twice == ({EMBED_TOKENS} if config.tie_word_embeddings else set())


def test_the_engine_stacks_queries_keys_and_values_in_this_order() -> None:
    by_name = {part.name: part.tensors for part in parts(TINY)}
    for tower, root in (("vision.1", "model.vision_model.encoder.layers.1"), ("text.1", "model.text_model.layers.1")):
        assert by_name[f"{tower}.qkv"] == tuple(f"{root}.self_attn.{x}_proj.weight" for x in "qkv")
    assert by_name["vision.1.qkv.bias"] == tuple(f"model.vision_model.encoder.layers.1.self_attn.{x}_proj.bias" for x in "qkv")
    assert by_name["text.0.gate_up"] == tuple(f"model.text_model.layers.0.mlp.{x}_proj.weight" for x in ("gate", "up"))


def test_a_vision_config_without_a_size_of_its_own_is_the_references() -> None:
    """What published files omit: the defaults of `Idefics3VisionConfig`, not those of a preset."""
    from oracle import transformers

    theirs = transformers.Idefics3Config().vision_config
    ours = VisionConfig.from_dict({})
    for key, value in vars(ours).items():
        assert getattr(theirs, key) == value, key
