"""ONNX: the vision tower and the connector of a checkpoint, for one tile. Needs torch, `onnx` and `onnxscript`."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from smolvlm.config import load_configs
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.vision import position_ids
from smolvlm.nn.weights import load_model

_OPSET = 20  # the first with Gelu as one operator


def write_vision_onnx(folder: Path, out: Path) -> None:
    """pixel_values (1, 3, side, side) -> image_embeds (1, image_seq_len, hidden) of a checkpoint, float32."""
    config, _ = load_configs(folder)

    class Vision(torch.nn.Module):
        """Our own modules; which position a patch takes is worked out beforehand, as constants."""

        def __init__(self, model: SmolVLMForConditionalGeneration) -> None:
            super().__init__()
            self.tower, self.connector = model.model.vision_model, model.model.connector
            positions = self.tower.embeddings.position_embedding(position_ids(config.vision))
            self.register_buffer("positions", positions.detach())

        def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
            patches = self.tower.embeddings.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
            hidden_states = self.tower.encoder(patches + self.positions)
            embeds: torch.Tensor = self.connector(self.tower.post_layernorm(hidden_states))
            return embeds

    side = config.vision.image_size
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        torch.onnx.export(
            Vision(load_model(folder, config)).eval(),
            (torch.zeros(1, 3, side, side),),
            out,
            dynamo=True,
            opset_version=_OPSET,
            external_data=True,
            input_names=["pixel_values"],
            output_names=["image_embeds"],
        )
