"""`AutoProcessor` against `transformers`: keys, types, shapes, ids and pixels, in every way of calling it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers_compat import CALL, GREY_STEP, assert_same_inputs, image_part, ours, reference, text_part, user
from helpers_media import photo
from helpers_prompt import tiny_checkpoint
from smolvlm import AutoProcessor

NAMES = ["text", "one image", "text first", "three interleaved", "system and turns", "video", "two videos", "batch", "video batch"]
IMAGE_TOLERANCE = 1e-6  # our tables are rounded once, the reference computes in float32: see media/pixels.py
# The reference resizes frames with torchvision, which differs from Pillow by one grey level at either of two resizes.
VIDEO_TOLERANCE = 2 * GREY_STEP + 1e-6


def tolerance(name: str) -> float:
    return VIDEO_TOLERANCE if "video" in name else IMAGE_TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_messages_as_tensors(name: str, talks: dict[str, list[Any]]) -> None:
    extra = {"padding": True} if "batch" in name else {}
    mine, theirs = (side.processor.apply_chat_template(talks[name], **CALL, **extra, return_tensors="pt") for side in (ours(), reference()))
    assert_same_inputs(mine, theirs, tolerance(name))


@pytest.mark.parametrize("name", NAMES)
def test_prompt_strings(name: str, talks: dict[str, list[Any]]) -> None:
    for generation_prompt in (True, False):
        mine, theirs = (
            side.processor.apply_chat_template(talks[name], add_generation_prompt=generation_prompt) for side in (ours(), reference())
        )
        assert mine == theirs


@pytest.mark.parametrize("name", ["text", "one image", "batch"])
def test_arrays_and_lists(name: str, talks: dict[str, list[Any]]) -> None:
    mine, theirs = (
        side.processor.apply_chat_template(talks[name], **CALL, padding=True, return_tensors="np") for side in (ours(), reference())
    )
    assert_same_inputs(mine, theirs, IMAGE_TOLERANCE)
    mine, theirs = (side.processor.apply_chat_template(talks[name], **CALL) for side in (ours(), reference()))
    assert list(mine) == list(theirs)
    assert mine["input_ids"] == theirs["input_ids"]  # lists of unequal length
    assert mine["attention_mask"] == theirs["attention_mask"]
    ids = ours().processor.apply_chat_template(talks[name], add_generation_prompt=True, tokenize=True)
    assert ids == theirs["input_ids"]


@pytest.mark.parametrize(
    "extra",
    [
        {"padding": True, "padding_side": "left"},
        {"padding": "longest", "pad_to_multiple_of": 64},
        {"padding": "max_length", "max_length": 300},
        {"padding": True, "do_image_splitting": False},
        {"padding": True, "processor_kwargs": {"size": {"longest_edge": 128}}},
        {"padding": True, "images_kwargs": {"do_image_splitting": False}, "text_kwargs": {"padding_side": "left"}},
    ],
)
def test_call_arguments(extra: dict[str, Any], talks: dict[str, list[Any]]) -> None:
    mine, theirs = (
        side.processor.apply_chat_template(talks["batch"], **CALL, **extra, return_tensors="np") for side in (ours(), reference())
    )
    assert_same_inputs(mine, theirs, IMAGE_TOLERANCE)


@pytest.mark.parametrize("extra", [{"num_frames": 2}, {"fps": 2}, {"num_frames": 3, "fps": 5}])
def test_sampling_arguments(extra: dict[str, Any], talks: dict[str, list[Any]]) -> None:
    mine, theirs = (
        side.processor.apply_chat_template(talks["two videos"], **CALL, **extra, return_tensors="np") for side in (ours(), reference())
    )
    if extra == {"num_frames": 2}:
        assert mine["pixel_values"].shape[:2] == (2, 2)
    assert_same_inputs(mine, theirs, VIDEO_TOLERANCE)


def test_unequal_videos_name_their_own_number_of_frames(talks: dict[str, list[Any]]) -> None:
    """The reference writes the longest clip's number of frames into every intro; ours is the clip's own."""
    mine, theirs = (
        side.processor.apply_chat_template(talks["unequal videos"], **CALL, return_tensors="np") for side in (ours(), reference())
    )
    texts = [side.processor.decode(inputs["input_ids"][0]) for side, inputs in ((ours(), mine), (reference(), theirs))]
    assert "series of four frames from a 0:00:04" in texts[0]
    assert texts[0] == texts[1].replace("series of nine frames from a 0:00:04", "series of four frames from a 0:00:04")
    assert np.abs(mine["pixel_values"] - theirs["pixel_values"]).max() <= VIDEO_TOLERANCE
    assert np.array_equal(mine["pixel_attention_mask"][:, :, 0, 0].sum(axis=1), [4, 9])


@pytest.mark.parametrize("changes", [{"size": {"longest_edge": 128}}, {"do_image_splitting": False}, {"padding_side": "left"}])
def test_settings_given_on_loading(changes: dict[str, Any], examples: Path) -> None:
    """The default image path of the reference is torchvision's. On photos it is within two grey levels of its Pillow path;
    on noise that is enlarged, where one path clips overshoots between two resizes, the two differ by more."""
    from oracle import transformers

    theirs = transformers.AutoProcessor.from_pretrained(tiny_checkpoint(), **changes)
    mine = AutoProcessor.from_pretrained(tiny_checkpoint(), **changes)
    photos = [{"type": "image", "image": Image.open(examples / name)} for name in ("rocket.jpg", "chelsea.png")]
    batch = [[user(*photos, text_part("Which is alive?"))], [user(text_part("Hello"))]]
    pair = [side.apply_chat_template(batch, **CALL, padding=True, return_tensors="pt") for side in (mine, theirs)]
    assert_same_inputs(*pair, 2 * GREY_STEP + 1e-6)


def test_older_form_with_prompts_and_images() -> None:
    first, second, third = photo(150, 60, 1), photo(40, 130, 2), photo(64, 64, 3)
    one = [user({"type": "image"}, {"type": "image"}, text_part("Compare."))]
    two = [user(text_part("And"), {"type": "image"})]
    for messages, images in ((one, [first, second]), ([one, two], [[first, second], [third]]), (two, first), ([two], [[first]])):
        results = []
        for side in (ours(), reference()):
            prompt = side.processor.apply_chat_template(messages, add_generation_prompt=True)
            results.append(side.processor(text=prompt, images=images, padding=True, return_tensors="pt"))
        assert_same_inputs(*results, IMAGE_TOLERANCE)


def test_older_form_with_videos(talks: dict[str, list[Any]]) -> None:
    path = talks["video"][0]["content"][0]["path"]
    frames = [photo(80, 60, seed) for seed in range(5)]
    prompt = reference().processor.apply_chat_template(talks["video"], add_generation_prompt=True)
    for video, extra in ((path, {"do_sample_frames": True}), (frames, {}), (frames, {"do_sample_frames": False})):
        mine, theirs = (side.processor(text=prompt, videos=[video], return_tensors="np", **extra) for side in (ours(), reference()))
        assert_same_inputs(mine, theirs, VIDEO_TOLERANCE)
    # More frames than the checkpoint's cap of 64: taken whole when asked, as the reference does.
    many = [photo(20, 20, seed) for seed in range(70)]
    mine = ours().processor(text=prompt, videos=many, return_tensors="np", do_sample_frames=False)
    assert mine["pixel_values"].shape[1] == 70


def test_text_alone_is_trusted_in_a_call() -> None:
    for text in ("Hello, world.", ["one", "two <end_of_utterance> three"]):
        mine, theirs = (side.processor(text=text, padding=True, return_tensors="pt") for side in (ours(), reference()))
        assert_same_inputs(mine, theirs, 0)


def test_pictures_and_videos_in_one_batch_keep_all_their_tiles(talks: dict[str, list[Any]]) -> None:
    """The reference loses the pictures here and then fails in generate; we keep one row a conversation."""
    mixed = [talks["one image"], talks["video"]]
    together = ours().processor.apply_chat_template(mixed, **CALL, padding=True, return_tensors="pt")
    for row, messages in enumerate(mixed):
        alone = ours().processor.apply_chat_template(messages, **CALL, return_tensors="pt")
        tiles = alone["pixel_values"].shape[1]
        assert np.array_equal(together["pixel_values"][row, :tiles], alone["pixel_values"][0])
        assert not together["pixel_values"][row, tiles:].any()
        assert not together["pixel_attention_mask"][row, tiles:].any()


def test_typed_control_tokens_stay_text_and_string_content_is_kept() -> None:
    typed = [user(image_part(64, 64), text_part("what is <image><end_of_utterance>?"))]
    inputs = ours().processor.apply_chat_template(typed, **CALL)
    plain = ours().processor.apply_chat_template([user(image_part(64, 64), text_part("what?"))], **CALL)
    for token in ("<image>", "<end_of_utterance>"):
        token_id = ours().processor.tokenizer.convert_tokens_to_ids(token)
        assert inputs["input_ids"][0].count(token_id) == plain["input_ids"][0].count(token_id)
    assert "<image><end_of_utterance>?" in ours().processor.decode(inputs["input_ids"][0])
    string = ours().processor.apply_chat_template([{"role": "user", "content": "Hello"}], add_generation_prompt=True)
    assert string == reference().processor.apply_chat_template([user(text_part("Hello"))], add_generation_prompt=True)


def test_padding_side_can_be_assigned(talks: dict[str, list[Any]]) -> None:
    processor = AutoProcessor.from_pretrained(tiny_checkpoint())
    assert processor.tokenizer.padding_side == reference().processor.tokenizer.padding_side
    processor.tokenizer.padding_side = "left"
    inputs = processor.apply_chat_template(talks["batch"], **CALL, padding=True, return_tensors="np")
    assert (inputs["attention_mask"][:, -1] == 1).all()
    assert (inputs["attention_mask"][2, 0], inputs["input_ids"][2, 0]) == (0, processor.tokenizer.pad_token_id)
