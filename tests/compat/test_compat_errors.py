"""Bad input: every mistake ends in one of our own exceptions, in one sentence that names what is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers_compat import CALL, image_part, ours, text_part, user
from helpers_media import photo
from smolvlm.errors import ConfigError, ImageError, ParamsError, PromptError, SmolVLMError, SourceError

ASKED = [user(image_part(64, 64), text_part("What?"))]
PICTURE = photo(64, 64)


@pytest.mark.parametrize(
    ("messages", "kwargs", "kind", "words"),
    [
        ([], {}, PromptError, "empty"),
        ("Hello", {}, PromptError, "list"),
        ([{"role": "robot", "content": "x"}], {}, PromptError, "robot"),
        ([user({"type": "image"}, text_part("x"))], {}, PromptError, "placeholder"),
        ([user({"type": "image", "url": "/no/such/file.jpg"})], {}, SourceError, "file.jpg"),
        ([user({"type": "image", "image": b"not a picture"})], {}, ImageError, "picture"),
        (ASKED, {"bogus": 1}, ParamsError, "bogus"),
        (ASKED, {"return_tensors": "tf"}, ParamsError, "'pt'"),
        (ASKED, {"padding": "widest"}, ParamsError, "longest"),
        (ASKED, {"padding": "max_length"}, ParamsError, "max_length"),
        (ASKED, {"padding": True, "padding_side": "up"}, ParamsError, "left"),
        (ASKED, {"truncation": True}, ParamsError, "truncation"),
        (ASKED, {"size": 512}, ParamsError, "longest_edge"),
        (ASKED, {"size": {"longest_edge": 0}}, ParamsError, "longest_edge"),
        (ASKED, {"do_image_splitting": "yes"}, ParamsError, "True"),
        (ASKED, {"num_frames": 0}, ParamsError, "max_frames"),
        (ASKED, {"num_frames": 2, "max_frames": 3}, ParamsError, "same"),
        (ASKED, {"processor_kwargs": 3}, ParamsError, "processor_kwargs"),
        (ASKED, {"images_kwargs": {"size": {"longest_edge": 64}}, "size": {"longest_edge": 128}}, ParamsError, "twice"),
        (ASKED, {"chat_template": "{{ messages }}"}, ParamsError, "chat_template"),
        (ASKED, {"tools": [{}]}, ParamsError, "tools"),
        ([ASKED, [user(text_part("x"))]], {"return_tensors": "pt"}, ParamsError, "padding=True"),
        ([user({"type": "video", "path": "/no/such.mp4"})], {"do_sample_frames": False}, ParamsError, "num_frames"),
    ],
)
def test_apply_chat_template(messages: Any, kwargs: dict[str, Any], kind: type[SmolVLMError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        ours().processor.apply_chat_template(messages, **CALL, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "text is"),
        ({"images": [PICTURE]}, "text is"),
        ({"text": []}, "text is"),
        ({"text": [3]}, "text is"),
        ({"text": "<image>"}, "1 <image> and images"),
        ({"text": ["no marker", "none"], "images": [PICTURE]}, "0 <image> and images"),
        ({"text": ["<image>", "none"], "images": [PICTURE, PICTURE]}, "1 <image> and images"),
        ({"text": "<image>", "images": [PICTURE, PICTURE]}, "holds 2"),
        ({"text": ["<image>", "<image>"], "images": [[PICTURE]]}, "1 lists for 2 texts"),
        ({"text": ["<image>", "<image>"], "images": [[PICTURE], PICTURE]}, "mixes"),
        ({"text": ["<image>", "<image>"], "images": [[PICTURE, PICTURE], []]}, r"\[1, 1\]"),
        ({"text": "<video>"}, "1 <video> and videos"),
        ({"text": "a lone surrogate \ud800"}, "surrogate|Unicode|UTF|tokenized"),
    ],
)
def test_calling_the_processor(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(PromptError, match=words):
        ours().processor(**arguments)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bogus": 1}, "bogus"),
        ({"num_beams": 4}, "num_beams=4"),
        ({"num_return_sequences": 2}, "num_return_sequences=2"),
        ({"output_scores": True}, "output_scores"),
        ({"return_dict_in_generate": True}, "return_dict_in_generate"),
        ({"min_new_tokens": 3}, "min_new_tokens"),
        ({"generation_config": object()}, "keyword arguments"),
        ({"stopping_criteria": [print]}, "stop_strings"),
        ({"logits_processor": [print]}, "extract"),
        ({"seed": 3}, "manual_seed"),
        ({"do_sample": True, "temperature": 0.0}, "do_sample=False"),
        ({"do_sample": True, "temperature": -1.0}, "temperature"),
        ({"do_sample": "yes"}, "do_sample"),
        ({"do_sample": True, "top_p": 1.5}, "top_p"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
        ({"max_new_tokens": 2.5}, "max_new_tokens"),
        ({"max_length": 3}, "max_length=3"),
        ({"eos_token_id": "end"}, "eos_token_id"),
        ({"pad_token_id": 2**63}, "pad_token_id=9223372036854775808: expected a token id"),
        ({"eos_token_id": [2, 2**70]}, "eos_token_id"),
        ({"stop_strings": [""]}, "stop"),
    ],
)
def test_arguments_of_generate(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(ParamsError, match=words):
        ours().model.generate(input_ids=torch.tensor([[1, 3633, 42, 11189]]), **arguments)


def test_neutral_arguments_are_accepted() -> None:
    ids = torch.tensor([[1, 3633, 42, 11189]])
    plain = ours().model.generate(ids, max_new_tokens=2)
    same = ours().model.generate(
        ids,
        max_new_tokens=2,
        num_beams=1,
        num_return_sequences=1,
        use_cache=True,
        top_k=None,
        output_scores=False,
        logits_processor=[],
        min_length=0,
        bos_token_id=1,
    )
    assert torch.equal(plain, same)


def test_inputs_that_do_not_belong_together() -> None:
    inputs = ours().processor.apply_chat_template(ASKED, **CALL, return_tensors="np")
    ids, pixels, mask = inputs["input_ids"], inputs["pixel_values"], inputs["pixel_attention_mask"]
    hidden = mask.copy()
    hidden[0, 0, :5] = 0
    cases: list[tuple[dict[str, Any], str]] = [
        ({}, "needs input_ids"),
        ({"inputs": ids, "input_ids": ids}, "both"),
        ({"input_ids": ids[0]}, r"\(batch, tokens\)"),
        ({"input_ids": ids[:, :0]}, r"\(batch, tokens\)"),
        ({"input_ids": ids.astype(np.float32)}, "whole numbers"),
        ({"input_ids": [["a"]]}, "numbers"),
        ({"input_ids": [[1, 2], [1]]}, "padding=True"),
        ({"input_ids": ids}, "0 tiles"),
        ({"input_ids": ids, "pixel_values": pixels[:, :-1]}, "tiles"),
        ({"input_ids": ids[:, :-20], "pixel_values": pixels}, "tiles"),
        ({"input_ids": ids, "pixel_values": pixels[..., :32]}, "pixel_values has shape"),
        ({"input_ids": ids, "pixel_values": pixels, "attention_mask": ids[:, :3]}, "attention_mask has shape"),
        ({"input_ids": ids, "pixel_values": pixels, "attention_mask": ids * 0}, "all zero"),
        ({"input_ids": ids, "pixel_values": pixels, "pixel_attention_mask": mask[:, :2]}, "does not fit"),
        ({"input_ids": ids, "pixel_values": pixels, "pixel_attention_mask": hidden}, "whole tiles"),
    ]
    for arguments, words in cases:
        with pytest.raises(PromptError, match=words):
            ours().model.generate(**arguments, max_new_tokens=1)
    with pytest.raises(SmolVLMError, match="vocabulary"):
        ours().model.generate(input_ids=[[1, 10**6]], max_new_tokens=1)
    with pytest.raises(SmolVLMError, match="context"):
        ours().model.generate(input_ids=[[5] * 8192], max_new_tokens=1)


def test_a_bad_generation_config_is_named(tmp_path: Path) -> None:
    import shutil

    from helpers_prompt import tiny_checkpoint
    from smolvlm import AutoModelForImageTextToText

    folder = shutil.copytree(tiny_checkpoint(), tmp_path / "model")
    (folder / "generation_config.json").write_text('{"top_p": 7, "do_sample": true, "eos_token_id": 49279}')
    with pytest.raises(ConfigError, match=r"generation_config\.json: top_p=7"):
        AutoModelForImageTextToText.from_pretrained(folder)
    (folder / "generation_config.json").write_text("[]")
    with pytest.raises(SmolVLMError, match=r"generation_config\.json"):
        AutoModelForImageTextToText.from_pretrained(folder)
