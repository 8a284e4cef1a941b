"""From a stage's parameters to an official-format checkpoint."""

from __future__ import annotations

from pathlib import Path

import torch

from smolvlm.checkpoint.random import CHAT_TEMPLATE
from smolvlm.config import ModelConfig, ProcessorConfig
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.weights import save_model

MAX_FRAMES = 8  # clips of 2 to 8 frames are what it was trained on


def nano_processor(config: ModelConfig) -> ProcessorConfig:
    """One tile a picture: nano looks once, at 192 x 192."""
    side = config.vision.image_size
    return ProcessorConfig(
        image_seq_len=config.image_seq_len,
        tile_size=side,
        longest_edge=side,
        do_image_splitting=False,
        max_frames=MAX_FRAMES,
        video_longest_edge=side,
    )


def export(model: SmolVLMForConditionalGeneration, out: Path, tokenizer_json: str, card: str) -> Path:
    """Write the model as a bfloat16 checkpoint with its card (README.md); errors as of `save_model`."""
    return save_model(
        model.to(torch.bfloat16),
        out,
        nano_processor(model.config),
        tokenizer_json,
        CHAT_TEMPLATE,
        extra_files={"README.md": card} if card else {},
    )
