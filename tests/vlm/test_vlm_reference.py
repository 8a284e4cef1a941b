"""From a photo or a clip to the same tokens as `transformers`, through each system's own processor and decode loop."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import oracle  # noqa: F401  (before transformers)
import pytest
import torch
from PIL import Image
from transformers import SmolVLMForConditionalGeneration as Reference

import smolvlm
from helpers_media import make_clip
from helpers_prompt import reference_processor
from smolvlm.checkpoint.random import write_random_checkpoint
from smolvlm.config import preset

NEW_TOKENS = 16


@pytest.fixture(scope="module", params=[2, pytest.param(0, marks=pytest.mark.slow)], ids=["2 layers", "full depth"])
def both(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[smolvlm.SmolVLM, Any, Any]:
    """The 256M size in both systems, float32: at full width with two layers, and in the outer ring at full depth."""
    config = preset("256m")
    if request.param:
        text, vision = (dataclasses.replace(part, num_hidden_layers=request.param) for part in (config.text, config.vision))
        config = dataclasses.replace(config, text=text, vision=vision)
    folder = write_random_checkpoint(tmp_path_factory.mktemp("checkpoint") / "model", config, seed=11)
    processor = reference_processor(folder)
    reference = Reference.from_pretrained(folder, dtype=torch.float32).eval()
    model = smolvlm.load(folder, dtype="float32", device="cpu")
    (folder / "model.safetensors").unlink()
    return model, processor, reference


def conversation(kind: str, examples: Path, strip: Path, clip: Path) -> list[dict[str, Any]]:
    text = {"type": "text", "text": "What can be seen here?"}
    content = {
        "image": [{"type": "image", "path": str(strip)}, text],
        "whole-image": [{"type": "image", "path": str(examples / "coffee.png")}, text],
        "multi-image": [
            {"type": "image", "path": str(examples / "chelsea.png")},
            {"type": "text", "text": "and"},
            {"type": "image", "path": str(examples / "rocket.jpg")},
            text,
        ],
        "video": [{"type": "video", "path": str(clip)}, text],
    }[kind]
    return [{"role": "user", "content": content}]


# Tiles take seconds each on two cores. 13 of them, what the official settings make of the picture, are the slow suite's; a
# strip of it with a longest edge of 1024 pixels makes 3 and walks the same path; of two pictures each is one tile.
OPTIONS: dict[str, tuple[dict[str, Any], dict[str, Any], int]] = {  # the reference's, ours, the tiles or frames
    "image": ({"size": {"longest_edge": 1024}}, {"longest_edge": 1024}, 3),
    "whole-image": ({}, {}, 13),
    "multi-image": ({"do_image_splitting": False}, {"image_splitting": False}, 2),
    "video": ({}, {}, 3),
}


SLOW = ("whole-image", "multi-image")


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in SLOW else []) for kind in OPTIONS])
def test_greedy_ids_equal_the_reference(both: tuple[smolvlm.SmolVLM, Any, Any], examples: Path, kind: str, tmp_path: Path) -> None:
    model, processor, reference = both
    with Image.open(examples / "coffee.png") as picture:
        picture.crop((0, 100, picture.width, 300)).save(tmp_path / "strip.png")
    clip = make_clip(tmp_path / "clip.mp4", 30, rate=10)
    messages = conversation(kind, examples, tmp_path / "strip.png", clip)
    theirs, ours, tiles = OPTIONS[kind]
    inputs = processor.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt", **theirs
    )
    with torch.inference_mode():
        expected = reference.generate(**inputs, do_sample=False, max_new_tokens=NEW_TOKENS, eos_token_id=-1, pad_token_id=2)
    answer = model.chat(messages, max_new_tokens=NEW_TOKENS, ignore_eos=True, loop_guard=False, **ours)
    assert answer.usage.encoded_tiles == tiles
    assert answer.usage.prompt_tokens == inputs["input_ids"].shape[1]
    assert list(answer.token_ids) == expected[0, inputs["input_ids"].shape[1] :].tolist()
    assert len(answer.token_ids) == NEW_TOKENS


def test_a_batch_equals_its_members(both: tuple[smolvlm.SmolVLM, Any, Any], examples: Path) -> None:
    """Prompts of unequal lengths, with and without a picture, decoded together."""
    model, _, _ = both
    requests = [(None, "Hello"), (str(examples / "chelsea.png"), "What is it?"), (None, "A much longer question about it all")]
    options: dict[str, Any] = {"max_new_tokens": 12, "detail": "low", "loop_guard": False}
    together = model.ask_many(requests, **options)
    alone = [model.ask(media, prompt, **options) for media, prompt in requests]
    assert [a.token_ids for a in together] == [a.token_ids for a in alone]
    assert [a.text for a in together] == [a.text for a in alone]
