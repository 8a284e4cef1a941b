"""How the parameters begin when a model is trained from nothing."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from smolvlm.nn.model import SmolVLMForConditionalGeneration

_EMBEDDING_STD = 0.5  # of the size of an oracle token: the residual stream begins with both alike
_OUTPUTS = ("o_proj", "out_proj", "down_proj", "fc2")  # what adds to the residual stream


@torch.no_grad()
def start(model: SmolVLMForConditionalGeneration, seed: int) -> None:
    """Draw every parameter: matrices by their width, residual outputs smaller with depth, positions as 2-D sines."""
    generator = torch.Generator().manual_seed(seed)
    depth = {"vision": model.config.vision.num_hidden_layers, "text": model.config.text.num_hidden_layers}
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            fan_in = module.weight[0].numel()
            std = fan_in**-0.5
            if name.endswith(_OUTPUTS):
                std /= math.sqrt(2 * depth["vision" if "vision" in name else "text"])
            module.weight.normal_(0, std, generator=generator)
            if module.bias is not None:
                module.bias.zero_()
    trunk = model.model
    trunk.text_model.embed_tokens.weight.normal_(0, _EMBEDDING_STD, generator=generator)
    model.lm_head.weight.normal_(0, 0.02, generator=generator)
    positions = trunk.vision_model.embeddings.position_embedding.weight
    positions.copy_(sine_positions(model.config.vision.patches_per_side, positions.shape[1]))


def sine_positions(side: int, dim: int) -> Tensor:
    """(side * side, dim): sines and cosines of the row in one half, of the column in the other (arXiv 2010.11929's
    alternative). Drawn at random and small, positions drown in the patches and the tower never learns where things are."""
    quarter = dim // 4
    frequency = 1.0 / (100.0 ** (torch.arange(quarter) / quarter))
    angles = torch.arange(side)[:, None] * frequency[None]  # (side, quarter)
    waves = torch.cat((angles.sin(), angles.cos()), -1) * 0.5  # (side, dim / 2)
    rows, columns = waves[:, None].expand(-1, side, -1), waves[None].expand(side, -1, -1)
    return torch.cat((rows, columns), -1).flatten(0, 1)
