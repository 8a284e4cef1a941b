"""Our list of tensors against what the reference model really declares, for every preset."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from oracle import transformers

from smolvlm.checkpoint import is_tolerated, tensor_shapes
from smolvlm.checkpoint.random import TINY
from smolvlm.config import PRESETS, ModelConfig
from smolvlm.errors import ConfigError

SIZES = {"tiny": TINY, **PRESETS}


def reference_shapes(config: ModelConfig) -> list[tuple[str, tuple[int, ...]]]:
    """The parameters that `transformers` declares for our config.json, built without memory for them."""
    raw: dict[str, Any] = config.to_dict()
    kind = raw.pop("model_type")
    reference_config = transformers.AutoConfig.for_model(kind, **raw)
    with torch.device("meta"):
        model = transformers.AutoModelForImageTextToText.from_config(reference_config)
    return [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]


@pytest.mark.parametrize("size", SIZES)
def test_names_shapes_and_order_equal_the_reference(size: str) -> None:
    assert list(tensor_shapes(SIZES[size]).items()) == reference_shapes(SIZES[size])


def test_first_generation_has_the_same_names() -> None:
    config = replace(PRESETS["256m"], model_type="idefics3")
    assert list(tensor_shapes(config).items()) == reference_shapes(config)


@pytest.mark.parametrize(("size", "tensors", "parameters"), [("500m", 489, 507_482_304), ("256m", 471, None)])
def test_published_counts(size: str, tensors: int, parameters: int | None) -> None:
    """489 tensors and 507.48 M parameters are the published 500M file's."""
    shapes = tensor_shapes(PRESETS[size])
    assert len(shapes) == tensors
    if parameters is not None:
        total = sum(int(torch.Size(shape).numel()) for shape in shapes.values())
        assert total == parameters
        assert round(total / 1e6, 2) == 507.48


def test_tied_embeddings_have_no_head() -> None:
    untied, tied = tensor_shapes(TINY), tensor_shapes(replace(TINY, tie_word_embeddings=True))
    assert untied.keys() - tied.keys() == {"lm_head.weight"}


@pytest.mark.parametrize(
    ("name", "tolerated"),
    [
        ("model.vision_model.embeddings.position_ids", True),
        ("model.text_model.layers.11.self_attn.rotary_emb.inv_freq", True),
        ("model.text_model.rotary_emb.inv_freq", True),
        ("model.vision_model.embeddings.position_embedding.weight", False),
        ("evil.model.vision_model.embeddings.position_ids", False),
        ("model.text_model.layers.11.self_attn.rotary_emb.inv_freq.more", False),
    ],
)
def test_tolerated_names(name: str, tolerated: bool) -> None:
    assert is_tolerated(name) is tolerated


def test_dimensions_that_are_no_dimensions() -> None:
    fractional = replace(TINY, text=replace(TINY.text, intermediate_size=256.5))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"intermediate_size=256\.5"):
        tensor_shapes(fractional)
    endless = replace(TINY, vision=replace(TINY.vision, num_hidden_layers=10**9))
    with pytest.raises(ConfigError, match="num_hidden_layers=1000000000"):
        tensor_shapes(endless)
