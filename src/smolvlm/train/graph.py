"""The forward pass that training needs: `model(batch)`, so that DDP and FSDP see one call of one module."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.train.batching import Batch
from smolvlm.train.packing import attend_within


class GraphOutput(NamedTuple):
    """logits: (weight_tokens, vocab) at `batch.predicting()`; hidden_states: (rows, seq, dim) after the last norm.

    A tuple, because FSDP looks for tensors in tuples.
    """

    logits: Tensor
    hidden_states: Tensor


class TrainingGraph(nn.Module):
    """A SmolVLM whose forward takes a `Batch`. `net` is the model itself, with the official tensor names.

    neftune_alpha > 0 adds uniform noise of that strength / sqrt(tokens x dim) to the input embeddings while training
    (NEFTune, arXiv 2310.05914). always_look runs one blank tile through the vision tower when a batch has no picture,
    with no effect on the result: every process must take part in each parameter's exchange.
    """

    def __init__(self, net: SmolVLMForConditionalGeneration, *, neftune_alpha: float = 0.0, always_look: bool = False) -> None:
        super().__init__()
        self.net = net
        self.neftune_alpha = neftune_alpha
        self.always_look = always_look

    def forward(self, batch: Batch) -> GraphOutput:
        image_embeds = None if batch.pixel_values is None else self._look(batch.pixel_values)
        inputs_embeds = self.net.embed(batch.input_ids, image_embeds)
        if batch.pixel_values is None and self.always_look:
            inputs_embeds = inputs_embeds + 0.0 * self._blank_look(inputs_embeds).sum()
        if self.training and self.neftune_alpha > 0:
            inputs_embeds = inputs_embeds + self._noise(inputs_embeds, batch)
        hidden_states = self.net.model.text_model(inputs_embeds, batch.positions, attend_within(batch))
        logits = self.net.lm_head(hidden_states[batch.predicting()])
        return GraphOutput(logits, hidden_states)

    def _look(self, pixel_values: Tensor) -> Tensor:
        dtype = self.net.model.vision_model.embeddings.patch_embedding.weight.dtype
        return self.net.encode_images(pixel_values.to(dtype))

    def _blank_look(self, like: Tensor) -> Tensor:
        side = self.net.config.vision.image_size
        return self._look(torch.zeros(1, 3, side, side, device=like.device))

    def _noise(self, inputs_embeds: Tensor, batch: Batch) -> Tensor:
        lengths = (batch.segment_ids > 0).sum(1, keepdim=True).clamp(min=1)[..., None]  # (rows, 1, 1)
        scale = self.neftune_alpha / (lengths * inputs_embeds.shape[-1]).sqrt()
        return torch.empty_like(inputs_embeds).uniform_(-1, 1) * scale.to(inputs_embeds.dtype)
