"""Gradient checkpointing (arXiv 1604.06174): layers keep their inputs only, and are computed again on the way back."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from smolvlm.nn.text import TextLayer
from smolvlm.nn.vision import VisionLayer


def enable_checkpointing(graph: nn.Module) -> None:
    """From now on every vision and text layer of `graph` is recomputed in the backward pass."""
    for layer in _layers(graph):
        if not is_checkpointed(layer):
            # An attribute of the object, in front of the class's method.
            object.__setattr__(layer, "forward", functools.partial(_recomputed, layer.forward))


def disable_checkpointing(graph: nn.Module) -> None:
    """Back to layers that keep what the backward pass needs."""
    for layer in _layers(graph):
        if is_checkpointed(layer):
            object.__delattr__(layer, "forward")


def is_checkpointed(graph: nn.Module) -> bool:
    """Whether the layers of `graph` are recomputed."""
    return any("forward" in vars(layer) for layer in _layers(graph))


def _layers(graph: nn.Module) -> list[nn.Module]:
    return [module for module in graph.modules() if isinstance(module, TextLayer | VisionLayer)]


def _recomputed(forward: Any, *args: Any) -> Any:
    return checkpoint(forward, *args, use_reentrant=False) if torch.is_grad_enabled() else forward(*args)
