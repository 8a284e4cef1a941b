"""Our graph against `transformers`: logits at every position, at full width and depth where the machine allows."""

from __future__ import annotations

import dataclasses
import gc
from collections.abc import Iterator
from pathlib import Path

import oracle  # noqa: F401  (before transformers)
import pytest
import torch
from transformers import SmolVLMForConditionalGeneration as Reference

from smolvlm.checkpoint.random import write_random_checkpoint
from smolvlm.config import ModelConfig, load_configs, preset
from smolvlm.engines.torch_engine import TorchEngine
from smolvlm.nn.weights import load_model

# float32 rounds at 6e-8; some 30 layers of sums over a thousand products each, around logits of size 3.
LOGITS_TOLERANCE = 1e-4


def shallow(config: ModelConfig, layers: int) -> ModelConfig:
    """The same width with fewer layers."""
    return dataclasses.replace(
        config,
        text=dataclasses.replace(config.text, num_hidden_layers=layers),
        vision=dataclasses.replace(config.vision, num_hidden_layers=layers),
    )


SIZES = {
    "tiny": "tiny",
    "256m": preset("256m"),
    "500m": preset("500m"),
    "2.2b of 2 layers": shallow(preset("2.2b"), 2),
    "tied, 2 layers": dataclasses.replace(shallow(preset("256m"), 2), tie_word_embeddings=True),
}


# The width of the 256M size with two layers in the quick suite; full depth repeats the path and costs minutes on two cores.
QUICK = ("tiny", "tied, 2 layers")


@pytest.fixture(params=[pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SIZES], scope="module")
def checkpoint(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", SIZES[request.param], seed=3)
    yield folder
    for file in folder.iterdir():
        file.unlink()  # two gigabytes each: not kept until the end of the run
    gc.collect()


def prompt(config: ModelConfig, tiles: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids with the image tokens of `tiles` tiles in two runs, and pixels of every value."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 40_000, (1, 60 + tiles * config.image_seq_len), generator=generator)
    ids[0, 10 : 10 + config.image_seq_len] = config.image_token_id
    ids[0, 30 + config.image_seq_len : 30 + tiles * config.image_seq_len] = config.image_token_id
    side = config.vision.image_size
    return ids, torch.rand(tiles, 3, side, side, generator=generator) * 2 - 1


def test_float32_logits_equal_the_reference_at_every_position(checkpoint: Path) -> None:
    config, _ = load_configs(checkpoint)
    ids, pixel_values = prompt(config, tiles=2)
    reference, info = Reference.from_pretrained(checkpoint, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    with torch.inference_mode():
        expected = reference.eval()(input_ids=ids, pixel_values=pixel_values[None]).logits
    del reference
    model = load_model(checkpoint, config)
    with torch.inference_mode():
        logits = model(ids, pixel_values)
    assert (logits - expected).abs().max() < LOGITS_TOLERANCE

    engine = TorchEngine(model)  # the packed products and the KV cache, which is what users run
    embeds = engine.encode_images(pixel_values.numpy())
    seq = engine.open(ids.shape[1] + 8)
    all_logits = torch.from_numpy(engine.prefill(seq, ids[0].tolist(), [embeds], logits_to_keep=0))
    assert (all_logits - expected[0]).abs().max() < LOGITS_TOLERANCE


def test_position_ids_repeat_the_reference_rounding() -> None:
    """At 27 patches a side float32 sends some patches to a neighbour; the plain 0, 1, 2, ... would be wrong there."""
    from transformers.models.smolvlm.configuration_smolvlm import SmolVLMVisionConfig
    from transformers.models.smolvlm.modeling_smolvlm import SmolVLMVisionEmbeddings

    from smolvlm.config import VisionConfig
    from smolvlm.nn.vision import position_ids

    for image_size, patch_size in ((512, 16), (384, 14), (364, 14), (224, 32), (192, 16)):
        ours = VisionConfig(hidden_size=12, image_size=image_size, patch_size=patch_size)
        theirs = SmolVLMVisionEmbeddings(SmolVLMVisionConfig(hidden_size=12, image_size=image_size, patch_size=patch_size))
        seen: list[torch.Tensor] = []
        theirs.position_embedding.register_forward_hook(lambda _m, inputs, _out, seen=seen: seen.append(inputs[0]))
        side = ours.patches_per_side
        theirs(torch.zeros(1, 3, image_size, image_size), torch.ones(1, side, side, dtype=torch.bool))
        assert torch.equal(position_ids(ours), seen[0][0]), (image_size, patch_size)


def test_gradients_equal_the_reference(tiny_checkpoint: Path) -> None:
    """The graph that trains is the graph that answers."""
    config, _ = load_configs(tiny_checkpoint)
    ids, pixel_values = prompt(config, tiles=2)
    reference = Reference.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    model = load_model(tiny_checkpoint, config)
    for logits in (reference(input_ids=ids, pixel_values=pixel_values[None]).logits, model(ids, pixel_values)):
        torch.nn.functional.cross_entropy(logits[0, :-1], ids[0, 1:]).backward()
    theirs = dict(reference.named_parameters())
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert (parameter.grad - theirs[name].grad).abs().max() < 1e-5, name
