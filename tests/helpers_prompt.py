"""What the prompt tests share: a tiny checkpoint folder of official format, and the reference's ids for messages."""

from __future__ import annotations

import functools
import tempfile
from pathlib import Path
from typing import Any

from smolvlm.checkpoint.random import write_random_checkpoint

_kept: list[tempfile.TemporaryDirectory[str]] = []  # removed when the process ends


@functools.cache
def tiny_checkpoint() -> Path:
    """Random weights, real tokenizer layout: special tokens have their official ids."""
    _kept.append(tempfile.TemporaryDirectory(prefix="smolvlm-test-"))
    return write_random_checkpoint(Path(_kept[-1].name) / "tiny", "tiny")


@functools.cache
def reference_processor(folder: Path) -> Any:
    """The reference's own processor with its Pillow image path, reading videos with PyAV.

    Its other ways of reading files need compiled parts of torchvision and torchcodec, which are CUDA builds.
    """
    from oracle import fetch_videos_by_pyav, transformers

    # isort: split
    from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

    processor = transformers.SmolVLMProcessor.from_pretrained(folder)
    processor.image_processor = SmolVLMImageProcessorPil.from_pretrained(folder)
    processor.video_processor.fetch_videos = fetch_videos_by_pyav
    return processor


def reference_inputs(folder: Path, messages: list[Any], **kwargs: Any) -> Any:
    """What the reference's `apply_chat_template` returns."""
    kwargs = {"add_generation_prompt": True, "tokenize": True, "return_dict": True, "return_tensors": "pt", **kwargs}
    return reference_processor(folder).apply_chat_template(messages, **kwargs)


def reference_ids(folder: Path, messages: list[Any], **kwargs: Any) -> list[int]:
    ids: list[int] = reference_inputs(folder, messages, **kwargs)["input_ids"][0].tolist()
    return ids
