"""The Llama decoder (arXiv 2302.13971, grouped-query attention of 2305.13245): RMSNorm, rotary positions, SwiGLU."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smolvlm.config import TextConfig
from smolvlm.nn.attention import attention
from smolvlm.nn.embedding import Embedding

# (layer, query, key, value) -> attended; query (batch, heads, seq, head_dim), key and value (batch, kv_heads, seq, head_dim).
# The graph is one; where keys and values are kept (nowhere, a cache a sequence, a static slab) is the caller's business.
Attend: TypeAlias = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def causal(_layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attend within the call, without a cache: training, and the uncached reference of our own tests."""
    return attention(query, key, value, causal=True)


def rotary_table(config: TextConfig) -> Tensor:
    """cos and signed sin of every position, (2, max_position_embeddings, head_dim), float32 (RoFormer, arXiv 2104.09864).

    The rotation is the half-split one: dimension i pairs with i + head_dim / 2. The sign of the first half is folded
    into the table, so that x * cos + roll(x, head_dim / 2) * sin rotates.
    """
    exponents = torch.arange(0, config.head_dim, 2, dtype=torch.int64).float() / config.head_dim
    inverse_frequency = 1.0 / (config.rope_theta**exponents)
    angles = torch.arange(config.max_position_embeddings, dtype=torch.float32)[:, None] * inverse_frequency[None, :]
    cos, sin = angles.cos(), angles.sin()
    return torch.stack((torch.cat((cos, cos), -1), torch.cat((-sin, sin), -1)))


def rotate(x: Tensor, cos_sin: Tensor) -> Tensor:
    """x: (batch, seq, heads, head_dim); cos_sin: (2, batch or 1, seq, 1, head_dim) of the same dtype."""
    return torch.addcmul(x * cos_sin[0], x.roll(x.shape[-1] // 2, -1), cos_sin[1])


class TextAttention(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        dim, head_dim = config.hidden_size, config.head_dim
        self.q_proj = nn.Linear(dim, config.num_attention_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(dim, config.num_key_value_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(dim, config.num_key_value_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(config.num_attention_heads * head_dim, dim, bias=False)

    def forward(self, hidden_states: Tensor, cos_sin: Tensor, layer: int, attend: Attend) -> Tensor:
        """(batch, seq, dim) -> the same shape."""
        heads, kv_heads = self.config.num_attention_heads, self.config.num_key_value_heads
        projected = [proj(hidden_states) for proj in (self.q_proj, self.k_proj, self.v_proj)]
        qkv = torch.cat(projected, -1).unflatten(-1, (heads + 2 * kv_heads, self.config.head_dim))
        query_key = rotate(qkv[:, :, : heads + kv_heads], cos_sin).transpose(1, 2)  # (batch, heads + kv_heads, seq, hd)
        value = qkv[:, :, heads + kv_heads :].transpose(1, 2)
        attended = attend(layer, query_key[:, :heads], query_key[:, heads:], value)
        out: Tensor = self.o_proj(attended.transpose(1, 2).flatten(2))
        return out


class TextMLP(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, hidden_states: Tensor) -> Tensor:
        out: Tensor = self.down_proj(F.silu(self.gate_proj(hidden_states)) * self.up_proj(hidden_states))
        return out


class TextLayer(nn.Module):
    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.self_attn = TextAttention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self.mlp = TextMLP(config)

    def forward(self, hidden_states: Tensor, cos_sin: Tensor, layer: int, attend: Attend) -> Tensor:
        hidden_states = hidden_states + self.self_attn(self.input_layernorm(hidden_states), cos_sin, layer, attend)
        out: Tensor = hidden_states + self.mlp(self.post_attention_layernorm(hidden_states))
        return out


class TextModel(nn.Module):
    """Token embeddings to hidden states; official prefix `model.text_model`."""

    def __init__(self, config: TextConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(TextLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = nn.RMSNorm(config.hidden_size, eps=config.rms_norm_eps)
        self._rotary: Tensor | None = None  # made on first use: no file holds it, and a meta-device model must not

    def rotary(self, positions: Tensor, like: Tensor) -> Tensor:
        """Rows of the table for `positions` (batch or 1, seq): (2, batch or 1, seq, 1, head_dim) in the dtype of `like`."""
        if self._rotary is None or self._rotary.device != like.device or self._rotary.dtype != like.dtype:
            with torch.inference_mode(False), torch.device("cpu"):
                # The angles are float32 whatever the model's dtype, as in the reference; only the result is rounded.
                self._rotary = rotary_table(self.config).to(like.device, like.dtype)
        return self._rotary[:, positions].unsqueeze(-2)

    def forward(self, inputs_embeds: Tensor, positions: Tensor, attend: Attend = causal) -> Tensor:
        """inputs_embeds (batch, seq, dim), positions (batch or 1, seq) int64 -> hidden_states (batch, seq, dim)."""
        cos_sin = self.rotary(positions, inputs_embeds)
        hidden_states = inputs_embeds
        for index, layer in enumerate(self.layers):
            hidden_states = layer(hidden_states, cos_sin, index, attend)
        out: Tensor = self.norm(hidden_states)
        return out
