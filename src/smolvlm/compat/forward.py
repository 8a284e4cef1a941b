"""`model(**inputs)`: logits of a padded batch, with gradients, and the loss where there are labels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from smolvlm.config import ModelConfig
from smolvlm.errors import ParamsError, PromptError
from smolvlm.nn.attention import attention
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.text import Attend, causal

IGNORED = -100  # labels that are not learned, as in PyTorch and the reference
_REMEDIES = {
    "past_key_values": "use generate, or smolvlm.load(...).session(media), which keeps a conversation's cache",
    "inputs_embeds": "pass input_ids and pixel_values",
    "output_attentions": "leave it out",
    "output_hidden_states": "leave it out",
    "image_hidden_states": "pass pixel_values",
    "cache_position": "leave it out",
}


class CausalLMOutput(dict[str, Any]):
    """`loss` (with labels), `logits`: by name, by attribute, or by number as a tuple."""

    def __getattr__(self, name: str) -> Any:
        if name in ("loss", "logits", "past_key_values", "hidden_states", "attentions"):
            return self.get(name)
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def __getitem__(self, key: Any) -> Any:
        return self.to_tuple()[key] if isinstance(key, int | slice) else super().__getitem__(key)

    def to_tuple(self) -> tuple[Any, ...]:
        """The values that are there, the loss first."""
        return tuple(self.values())


def forward(
    net: SmolVLMForConditionalGeneration,
    config: ModelConfig,
    input_ids: Any,
    attention_mask: Any,
    position_ids: Any,
    pixel_values: Any,
    pixel_attention_mask: Any,
    logits_to_keep: int,
) -> Tensor:
    """The logits, (batch, seq or logits_to_keep, vocab). Raises PromptError for inputs that do not belong together."""
    weight = net.model.text_model.embed_tokens.weight
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2 or input_ids.is_floating_point():
        raise PromptError("input_ids must be a tensor of ids, (batch, tokens); pass return_tensors='pt' to the processor.")
    if input_ids.numel() == 0 or int(input_ids.min()) < 0 or int(input_ids.max()) >= config.text.vocab_size:
        raise PromptError(f"input_ids hold no token, or one outside the vocabulary of {config.text.vocab_size}.")
    if input_ids.shape[1] > config.text.max_position_embeddings:
        raise PromptError(f"input_ids have {input_ids.shape[1]} tokens; this model's context is {config.text.max_position_embeddings}.")
    input_ids = input_ids.to(weight.device)
    tiles = _tiles(pixel_values, pixel_attention_mask, int((input_ids == config.image_token_id).sum()), config)
    image_embeds = None
    if tiles is not None and len(tiles):
        patches = net.model.vision_model.embeddings.patch_embedding.weight
        image_embeds = net.encode_images(tiles.to(patches.device, patches.dtype))
    if position_ids is None:
        position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
    inputs_embeds = net.embed(input_ids, image_embeds)
    hidden = net.model.text_model(inputs_embeds, position_ids, _attend(attention_mask, input_ids))
    logits: Tensor = net.lm_head(hidden[:, -logits_to_keep:])  # -0 keeps all
    return logits


def causal_lm_loss(logits: Tensor, labels: Tensor, num_items_in_batch: Any = None) -> Tensor:
    """Cross entropy of each token given those before it, in float32: the mean, or the sum over `num_items_in_batch`."""
    if labels.shape != logits.shape[:2]:
        raise PromptError(
            f"labels have shape {tuple(labels.shape)}, the logits are for {tuple(logits.shape[:2])}; pass one label for each of input_ids."
        )
    following = F.pad(labels.to(logits.device), (0, 1), value=IGNORED)[:, 1:]
    reduction = "mean" if num_items_in_batch is None else "sum"
    loss = F.cross_entropy(logits.float().flatten(0, 1), following.flatten(), ignore_index=IGNORED, reduction=reduction)
    if num_items_in_batch is None:
        return loss
    return loss / (num_items_in_batch.to(loss.device) if isinstance(num_items_in_batch, Tensor) else num_items_in_batch)


def refuse_arguments(arguments: dict[str, Any]) -> None:
    """Raise ParamsError for what is left of a call's arguments, unless it asks for nothing."""
    left = {name: value for name, value in arguments.items() if value is not None and value is not False}
    for name in left:
        raise ParamsError(f"model(...): {name} is not supported; {_REMEDIES.get(name, 'leave it out')}.")


def _tiles(pixel_values: Any, pixel_attention_mask: Any, image_tokens: int, config: ModelConfig) -> Tensor | None:
    """(tiles, 3, side, side) in order, without the tiles that only fill up a batch: they are zero everywhere."""
    if pixel_values is None:
        return None
    side = config.vision.image_size
    if not isinstance(pixel_values, Tensor) or pixel_values.ndim not in (4, 5) or pixel_values.shape[-3:] != (3, side, side):
        shape = tuple(getattr(pixel_values, "shape", ()))
        raise PromptError(
            f"pixel_values has shape {shape}; expected a tensor (batch, tiles, 3, {side}, {side}), as this checkpoint's processor returns."
        )
    tiles = pixel_values.reshape(-1, 3, side, side)
    real = torch.ones(len(tiles), dtype=torch.bool, device=tiles.device)
    if len(tiles) * config.image_seq_len != image_tokens:
        real = (tiles != 0).flatten(1).any(1)
    if pixel_attention_mask is not None:
        mask = pixel_attention_mask.reshape(-1, side, side)
        if len(mask) != len(tiles) or not bool(mask[real.to(mask.device)].all()):
            raise PromptError(
                "pixel_attention_mask does not fit pixel_values, or hides a part of a tile; pass both from one "
                "call of this checkpoint's processor."
            )
    return tiles[real]


def _attend(attention_mask: Any, input_ids: Tensor) -> Attend:
    """Causal attention that does not look at padding."""
    if attention_mask is None:
        return causal
    if attention_mask.shape != input_ids.shape:
        raise PromptError(
            f"attention_mask has shape {tuple(attention_mask.shape)}, input_ids {tuple(input_ids.shape)}; pass both from one call."
        )
    if bool(attention_mask.all()):
        return causal
    seq = input_ids.shape[1]
    earlier = torch.ones(seq, seq, dtype=torch.bool, device=input_ids.device).tril()
    itself = torch.eye(seq, dtype=torch.bool, device=input_ids.device)  # a row that saw nothing would be NaN, and spread
    mask = earlier & attention_mask.to(input_ids.device).bool()[:, None, :]  # (batch, seq, seq)
    blind = ~mask.any(-1)  # padding on the left: PyTorch gives it zeros, and so does the reference
    mask = mask | itself

    def attend(_layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        attended = attention(query, key, value, causal=True, mask=mask[:, None])
        return attended.masked_fill(blind[:, None, :, None], 0)

    return attend
