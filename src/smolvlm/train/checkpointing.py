"""Gradient checkpointing for as long as a step needs it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from smolvlm.nn.checkpointing import disable_checkpointing, enable_checkpointing


@contextmanager
def checkpointed_layers(graph: nn.Module) -> Iterator[None]:
    """Inside the `with` block every vision and text layer of `graph` is recomputed in the backward pass."""
    enable_checkpointing(graph)
    try:
        yield
    finally:
        disable_checkpointing(graph)
