"""The tensors of a checkpoint: official names, shapes by the names of the configuration's sizes, and the native engine's parts.

One table for all families, which share one graph. Source: the headers of the published SmolVLM2-256M and 500M files;
the first generation and granite-docling have the same names. Order: as the reference model lists its parameters.
The modules of `nn` have these names as their paths.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

LM_HEAD = "lm_head.weight"
EMBED_TOKENS = "model.text_model.embed_tokens.weight"


class Module(NamedTuple):
    """One module of the checkpoint.

    path: `{i}` is a layer's number. shape: of its `weight`, by the names of `sizes`; a bias has the first of them.
    part: of the native engine; modules of one part are stacked by `place`. layers: the size that counts the layers.
    """

    path: str
    part: str
    kind: Literal["matrix", "vector", "embedding"]
    shape: tuple[str, ...]
    bias: bool = False
    place: int = 0
    layers: str = ""


class Tensor(NamedTuple):
    """One tensor: its official name and shape, and where the native engine has it."""

    name: str
    shape: tuple[int, ...]
    part: str
    kind: Literal["matrix", "vector", "embedding"]
    place: int


_V, _T = "model.vision_model.", "model.text_model."
_VL, _TL = f"{_V}encoder.layers.{{i}}.", f"{_T}layers.{{i}}."
_VISION_LAYERS, _TEXT_LAYERS = "vision.layers", "text.layers"

MODULES = (
    Module(f"{_V}embeddings.patch_embedding", "vision.patch", "matrix", ("vision", "channels", "patch", "patch"), True),
    Module(f"{_V}embeddings.position_embedding", "vision.positions", "vector", ("patches", "vision")),
    # The reference declares k and v before q; the engine stacks q, k, v.
    Module(f"{_VL}self_attn.k_proj", "vision.{i}.qkv", "matrix", ("vision", "vision"), True, 1, _VISION_LAYERS),
    Module(f"{_VL}self_attn.v_proj", "vision.{i}.qkv", "matrix", ("vision", "vision"), True, 2, _VISION_LAYERS),
    Module(f"{_VL}self_attn.q_proj", "vision.{i}.qkv", "matrix", ("vision", "vision"), True, 0, _VISION_LAYERS),
    Module(f"{_VL}self_attn.out_proj", "vision.{i}.out", "matrix", ("vision", "vision"), True, 0, _VISION_LAYERS),
    Module(f"{_VL}layer_norm1", "vision.{i}.norm1", "vector", ("vision",), True, 0, _VISION_LAYERS),
    Module(f"{_VL}mlp.fc1", "vision.{i}.fc1", "matrix", ("vision.mlp", "vision"), True, 0, _VISION_LAYERS),
    Module(f"{_VL}mlp.fc2", "vision.{i}.fc2", "matrix", ("vision", "vision.mlp"), True, 0, _VISION_LAYERS),
    Module(f"{_VL}layer_norm2", "vision.{i}.norm2", "vector", ("vision",), True, 0, _VISION_LAYERS),
    Module(f"{_V}post_layernorm", "vision.post", "vector", ("vision",), True),
    Module("model.connector.modality_projection.proj", "connector", "matrix", ("text", "shuffled")),
    Module(f"{_T}embed_tokens", "embedding", "embedding", ("vocab", "text")),
    Module(f"{_TL}self_attn.q_proj", "text.{i}.qkv", "matrix", ("queries", "text"), False, 0, _TEXT_LAYERS),
    Module(f"{_TL}self_attn.k_proj", "text.{i}.qkv", "matrix", ("keys", "text"), False, 1, _TEXT_LAYERS),
    Module(f"{_TL}self_attn.v_proj", "text.{i}.qkv", "matrix", ("keys", "text"), False, 2, _TEXT_LAYERS),
    Module(f"{_TL}self_attn.o_proj", "text.{i}.out", "matrix", ("text", "queries"), False, 0, _TEXT_LAYERS),
    Module(f"{_TL}mlp.gate_proj", "text.{i}.gate_up", "matrix", ("text.mlp", "text"), False, 0, _TEXT_LAYERS),
    Module(f"{_TL}mlp.up_proj", "text.{i}.gate_up", "matrix", ("text.mlp", "text"), False, 1, _TEXT_LAYERS),
    Module(f"{_TL}mlp.down_proj", "text.{i}.down", "matrix", ("text", "text.mlp"), False, 0, _TEXT_LAYERS),
    Module(f"{_TL}input_layernorm", "text.{i}.norm1", "vector", ("text",), False, 0, _TEXT_LAYERS),
    Module(f"{_TL}post_attention_layernorm", "text.{i}.norm2", "vector", ("text",), False, 0, _TEXT_LAYERS),
    Module(f"{_T}norm", "text.norm", "vector", ("text",)),
    Module("lm_head", "head", "matrix", ("vocab", "text")),
)


def tensors(sizes: Mapping[str, int]) -> Iterator[Tensor]:
    """Every tensor in the official order, layer by layer. `sizes` has every name that MODULES uses."""
    modules = list(MODULES)
    while modules:
        layers = modules[0].layers
        run = [modules.pop(0)]
        while layers and modules and modules[0].layers == layers:
            run.append(modules.pop(0))
        for i in range(sizes[layers] if layers else 1):
            for module in run:
                yield from _tensors_of(module, i, sizes)


def _tensors_of(module: Module, layer: int, sizes: Mapping[str, int]) -> Iterator[Tensor]:
    path, part = module.path.format(i=layer), module.part.format(i=layer)
    shape = tuple(sizes[name] for name in module.shape)
    # A matrix and its bias are "x" and "x.bias"; of a norm with a bias, the engine calls the weight "x.weight".
    weight_part = f"{part}.weight" if module.bias and module.kind == "vector" else part
    yield Tensor(f"{path}.weight", shape, weight_part, module.kind, module.place)
    if module.bias:
        yield Tensor(f"{path}.bias", shape[:1], f"{part}.bias", "vector", module.place)
