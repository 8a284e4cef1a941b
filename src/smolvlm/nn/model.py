"""Vision, connector and decoder put together: the graph of `SmolVLMForConditionalGeneration`."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from smolvlm.config import ModelConfig
from smolvlm.errors import PromptError
from smolvlm.nn.connector import Connector
from smolvlm.nn.text import Attend, TextModel, causal
from smolvlm.nn.vision import VisionModel


class _Trunk(nn.Module):
    """Everything below the official prefix `model.`."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.vision_model = VisionModel(config.vision)
        self.connector = Connector(config)
        self.text_model = TextModel(config.text)


class SmolVLMForConditionalGeneration(nn.Module):
    """SmolVLM2 (arXiv 2504.05299). `state_dict()` has exactly the official tensor names."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.model = _Trunk(config)
        self.lm_head = nn.Linear(config.text.hidden_size, config.text.vocab_size, bias=False)
        if config.tie_word_embeddings:
            self.lm_head.weight = self.model.text_model.embed_tokens.weight

    def encode_images(self, pixel_values: Tensor) -> Tensor:
        """(tiles, 3, image_size, image_size), normalized -> (tiles, image_seq_len, text_dim)."""
        out: Tensor = self.model.connector(self.model.vision_model(pixel_values))
        return out

    def embed(self, input_ids: Tensor, image_embeds: Tensor | None = None) -> Tensor:
        """Look up (batch, seq) token ids; the image tokens take the rows of `image_embeds` in order.

        image_embeds: (rows, text_dim) or (tiles, image_seq_len, text_dim), as many rows as there are image tokens in
        `input_ids`, else PromptError: a wrong count would shift every later picture without a word.
        """
        inputs_embeds: Tensor = self.model.text_model.embed_tokens(input_ids)
        is_image = input_ids == self.config.image_token_id
        tokens = int(is_image.sum())
        rows = 0 if image_embeds is None else image_embeds.shape[:-1].numel()
        if tokens != rows:
            raise PromptError(f"the prompt has {tokens} image tokens, but {rows} rows of image embeddings were given.")
        if image_embeds is None or not rows:
            return inputs_embeds
        inputs_embeds = inputs_embeds.clone() if torch.is_grad_enabled() else inputs_embeds
        inputs_embeds[is_image] = image_embeds.reshape(rows, -1).to(inputs_embeds.dtype)
        return inputs_embeds

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        *,
        positions: Tensor | None = None,
        attend: Attend = causal,
        logits_to_keep: int = 0,
    ) -> Tensor:
        """input_ids (batch, seq), pixel_values (tiles, 3, side, side) of all rows in order -> logits (batch, seq, vocab).

        `logits_to_keep` > 0 computes only the last so many positions. Raises PromptError when image tokens and tiles disagree.
        """
        image_embeds = None if pixel_values is None else self.encode_images(pixel_values)
        if positions is None:
            positions = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
        hidden_states = self.model.text_model(self.embed(input_ids, image_embeds), positions, attend)
        logits: Tensor = self.lm_head(hidden_states[:, -logits_to_keep:])  # -0 keeps all
        return logits
