"""The SigLIP encoder (arXiv 2303.15343) as SmolVLM uses it: pre-norm blocks over a fixed grid of patches, no class token."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smolvlm.config import VisionConfig
from smolvlm.nn.attention import attention
from smolvlm.nn.embedding import Embedding


def position_ids(config: VisionConfig) -> Tensor:
    """Which learned position each patch of a full tile takes, (patches,), int64.

    The reference (NaViT-style bucketing, `SmolVLMVisionEmbeddings`) finds the place by comparing float32 fractions with
    float32 boundaries; at 27 patches a side (2.2B) rounding sends some patches to a neighbour's position, and the
    published weights were trained so. We repeat the arithmetic rather than the intention.
    """
    side = config.patches_per_side
    boundaries = torch.arange(1 / side, 1.0, 1 / side)
    step = 1.0 / torch.tensor(side)
    fractions = (torch.arange(side, dtype=torch.float32) * step).clamp(max=1.0 - 1e-6)
    bucket = torch.bucketize(fractions, boundaries, right=True)
    return (bucket[:, None] * side + bucket[None, :]).flatten()


class VisionEmbeddings(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.hidden_size, config.patch_size, stride=config.patch_size)
        self.position_embedding = Embedding(config.num_patches, config.hidden_size)
        self.config = config

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(tiles, 3, side, side) -> (tiles, patches, dim)."""
        patches: Tensor = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        positions: Tensor = self.position_embedding(position_ids(self.config).to(patches.device))
        return patches + positions


class VisionAttention(nn.Module):
    """Bidirectional over all patches of a tile."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        dim = config.hidden_size
        self.q_proj, self.k_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.v_proj, self.out_proj = nn.Linear(dim, dim), nn.Linear(dim, dim)

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(tiles, patches, dim) -> the same shape."""
        heads = (hidden_states.shape[-1] // self.head_dim, self.head_dim)
        query, key, value = (
            proj(hidden_states).unflatten(-1, heads).transpose(1, 2) for proj in (self.q_proj, self.k_proj, self.v_proj)
        )  # each (tiles, heads, patches, head_dim)
        out: Tensor = self.out_proj(attention(query, key, value, causal=False).transpose(1, 2).flatten(2))
        return out


class VisionMLP(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        out: Tensor = self.fc2(F.gelu(self.fc1(hidden_states), approximate="tanh"))
        return out


class VisionLayer(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VisionAttention(config)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VisionMLP(config)

    def forward(self, hidden_states: Tensor) -> Tensor:
        hidden_states = hidden_states + self.self_attn(self.layer_norm1(hidden_states))
        out: Tensor = hidden_states + self.mlp(self.layer_norm2(hidden_states))
        return out


class VisionEncoder(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.num_hidden_layers))

    def forward(self, hidden_states: Tensor) -> Tensor:
        for layer in self.layers:
            hidden_states = layer(hidden_states)
        return hidden_states


class VisionModel(nn.Module):
    """Pixels to patch embeddings; official prefix `model.vision_model`."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.embeddings = VisionEmbeddings(config)
        self.encoder = VisionEncoder(config)
        self.post_layernorm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """(tiles, 3, image_size, image_size), normalized -> (tiles, patches, vision_dim)."""
        out: Tensor = self.post_layernorm(self.encoder(self.embeddings(pixel_values)))
        return out
