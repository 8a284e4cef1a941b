"""Which engine runs a checkpoint on this machine."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from smolvlm.checkpoint.adapter import Adapter
from smolvlm.config import ModelConfig
from smolvlm.engines.base import Engine
from smolvlm.errors import EngineError, MissingExtraError

ENGINES = ("torch",)


def make_engine(
    folder: Path,
    config: ModelConfig,
    *,
    engine: str = "auto",
    device: str = "auto",
    dtype: str = "auto",
    on_tensor: Callable[[int, int], None] | None = None,
    adapter: Adapter | None = None,
) -> Engine:
    """Load the weights in `folder` into an engine. `auto` is the torch engine, the only one so far.

    `adapter` is added into the weights while they load. Raises EngineError for an unknown engine, device or dtype,
    AdapterError for an adapter of another model, MissingExtraError where torch is not installed.
    """
    if engine not in ("auto", *ENGINES):
        raise EngineError(f"engine={engine!r} is unknown; use auto, {', '.join(ENGINES)}.")
    if find_spec("torch") is None:
        raise MissingExtraError("running a model", "torch")
    from smolvlm.engines.torch_engine import TorchEngine

    return TorchEngine.from_folder(folder, config, device=device, dtype=dtype, on_tensor=on_tensor, adapter=adapter)
