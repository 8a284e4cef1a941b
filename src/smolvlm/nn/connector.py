"""From patches to image tokens."""

from __future__ import annotations

import math

from torch import Tensor, nn

from smolvlm.config import ModelConfig


class Connector(nn.Module):
    """Pixel shuffle, then a projection: each r x r block of patches becomes one image token of the text width.

    Source: SmolVLM (arXiv 2504.05299); r is `scale_factor` in the official `config.json`.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.scale_factor = config.scale_factor
        self.modality_projection = nn.ModuleDict(
            {"proj": nn.Linear(config.vision.hidden_size * self.scale_factor**2, config.text.hidden_size, bias=False)}
        )  # the official tensor is `modality_projection.proj.weight`

    def fold(self, patch_embeds: Tensor) -> Tensor:
        """(tiles, side**2, vision_dim) -> (tiles, image_seq_len, vision_dim * r**2): the patches of a block side by side."""
        r, side = self.scale_factor, math.isqrt(patch_embeds.shape[1])  # ModelConfig checked that r divides side
        grid = patch_embeds.unflatten(1, (side // r, r, side // r, r))
        # Inside a block the row varies slowest: the projection was trained on that order.
        blocks = grid.transpose(2, 3).flatten(3)  # (tiles, side/r, side/r, r*r*vision_dim)
        folded: Tensor = blocks.flatten(1, 2)
        return folded

    def forward(self, patch_embeds: Tensor) -> Tensor:
        """(tiles, side**2, vision_dim) -> (tiles, image_seq_len, text_dim), image_seq_len = (side / r)**2."""
        tokens: Tensor = self.modality_projection["proj"](self.fold(patch_embeds))
        return tokens
