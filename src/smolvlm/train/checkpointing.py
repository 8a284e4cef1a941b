"""Gradient checkpointing (arXiv 1604.06174): layers keep their inputs only, and are computed again on the way back."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn
from torch.utils.checkpoint import checkpoint

from smolvlm.nn.text import TextLayer
from smolvlm.nn.vision import VisionLayer


@contextmanager
def checkpointed_layers(graph: nn.Module) -> Iterator[None]:
    """Inside the `with` block every vision and text layer of `graph` is recomputed in the backward pass."""
    layers = [module for module in graph.modules() if isinstance(module, TextLayer | VisionLayer)]
    for layer in layers:
        # An attribute of the object, in front of the class's method.
        object.__setattr__(layer, "forward", functools.partial(checkpoint, layer.forward, use_reentrant=False))
    try:
        yield
    finally:
        for layer in layers:
            object.__delattr__(layer, "forward")
