"""Which engine runs a checkpoint on this machine."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from smolvlm.checkpoint.adapter import Adapter
from smolvlm.checkpoint.native_file import has_native_file
from smolvlm.config import ModelConfig
from smolvlm.engines import native_engine
from smolvlm.engines.base import Engine
from smolvlm.engines.native_engine import NativeEngine
from smolvlm.errors import EngineError, MissingExtraError

logger = logging.getLogger(__name__)

ENGINES = ("native", "torch")
_TORCH_DTYPES = ("float32", "float16")  # beside those of both; known without importing torch

# Where a GPU's driver shows itself; looking there is free, while asking torch costs seconds.
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")


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
    """Load the weights in `folder` into an engine.

    `auto` is the torch engine on a GPU, and the native one on a CPU for the precisions that it computes in (`bfloat16`,
    `q8`, `q4`, or part by part; `auto` is then q8) and everywhere for what `smolvlm quantize` wrote. `adapter` is added
    into the weights while they load. Raises EngineError for an unknown engine, device or dtype, AdapterError for an adapter
    of another model, MissingExtraError where torch is needed and not installed.
    """
    if engine not in ("auto", *ENGINES):
        raise EngineError(f"engine={engine!r} is unknown; use auto, {' or '.join(ENGINES)}.")
    if engine == "auto" and "=" not in dtype and dtype not in (*native_engine.DTYPES, *_TORCH_DTYPES):
        raise EngineError(
            f"dtype={dtype[:80]!r} is unknown; use {', '.join(native_engine.DTYPES)} or parts such as "
            f"vision=q8,text=q4 (native engine), {' or '.join(_TORCH_DTYPES)} (torch engine)."
        )
    chosen = _choose(folder, device, dtype) if engine == "auto" else engine
    if chosen == "native":
        if device not in ("auto", "cpu"):
            raise EngineError(f"device={device!r}: the native engine runs on the CPU; use engine='torch' for a GPU.")
        return NativeEngine(folder, config, dtype=dtype, on_tensor=on_tensor, adapter=adapter)
    if find_spec("torch") is None:
        raise MissingExtraError("running a model on the torch engine", "torch")
    from smolvlm.engines.torch_engine import TorchEngine

    return TorchEngine.from_folder(folder, config, device=device, dtype=dtype, on_tensor=on_tensor, adapter=adapter)


def _choose(folder: Path, device: str, dtype: str) -> str:
    """Which engine `auto` stands for."""
    if dtype in native_engine.QUANTIZED or "=" in dtype or has_native_file(folder):
        return "native"  # nothing else reads these
    if dtype not in native_engine.DTYPES or device not in ("auto", "cpu") or (device == "auto" and _has_gpu()):
        return "torch"
    if native_engine.native_module() is not None:
        return "native"
    logger.warning("the native engine was not built when smolvlm was installed (no C++ compiler?); the torch engine runs instead, slower.")
    return "torch"


def _has_gpu() -> bool:
    """Whether torch is installed and sees a GPU."""
    likely = sys.platform in ("win32", "darwin") or any(os.path.exists(driver) for driver in _DRIVERS)
    if not likely or find_spec("torch") is None:
        return False
    from smolvlm.engines.torch_device import choose_device

    return choose_device("auto").type != "cpu"
