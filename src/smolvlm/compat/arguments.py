"""Keyword arguments as `transformers` takes them: which are used, which change nothing here, which are refused."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from smolvlm.errors import EngineError, MissingExtraError, ParamsError
from smolvlm.hub import resolve

logger = logging.getLogger("smolvlm.compat")

# `from_pretrained` arguments that choose how the reference loads or computes; our results do not depend on them.
UNUSED_ON_LOADING = frozenset(
    {
        "_attn_implementation",
        "attn_implementation",
        "low_cpu_mem_usage",
        "trust_remote_code",
        "use_fast",
        "use_safetensors",
        "use_flash_attention_2",
        "_fast_init",
        "offload_folder",
        "offload_state_dict",
        "max_memory",
        "ignore_mismatched_sizes",
        "weights_only",
        "backend",
        "tp_plan",
        "cache_dir",
        "token",
        "use_auth_token",
        "force_download",
        "resume_download",
        "config",
        "variant",
        "output_loading_info",
    }
)


def report_unused(kwargs: dict[str, Any], harmless: frozenset[str], where: str) -> None:
    """Take the harmless arguments out of `kwargs` and name them in the log."""
    found = sorted(name for name in kwargs if name in harmless)
    for name in found:
        kwargs.pop(name)
    if found:
        logger.warning("%s: %s changes nothing here and is not used", where, ", ".join(found))


def refuse_unknown(kwargs: Mapping[str, Any], where: str, known: str) -> None:
    """Raise ParamsError naming what is left in `kwargs`."""
    if kwargs:
        raise ParamsError(f"{where} does not know {', '.join(sorted(map(str, kwargs)))}; it takes {known}.")


def local_folder(name_or_path: Any, kwargs: dict[str, Any]) -> Path:
    """The checkpoint's folder; takes `revision` and `local_files_only` out of `kwargs`. Raises ModelNotFoundError."""
    revision = kwargs.pop("revision", None)
    offline = True if kwargs.pop("local_files_only", False) else None
    return resolve(str(name_or_path), revision=revision, offline=offline)


def require_torch(what: str) -> None:
    """Raise MissingExtraError where torch is not installed."""
    if find_spec("torch") is None:
        raise MissingExtraError(what, "torch")


def device_and_dtype(args: tuple[Any, ...], kwargs: dict[str, Any], where: str) -> tuple[Any, Any]:
    """The arguments of a `.to(...)` call as (torch.device | None, torch.dtype | None).

    A device may be a name, a `torch.device` or a number of a CUDA device. Raises EngineError for a device that this
    machine lacks, ParamsError for anything that is neither.
    """
    require_torch(f"{where}.to(...)")
    import torch

    from smolvlm.engines.torch_device import choose_device

    kwargs.pop("non_blocking", None)
    device, dtype = kwargs.pop("device", None), kwargs.pop("dtype", None)
    refuse_unknown(kwargs, f"{where}.to", "a device, a dtype and non_blocking")
    for arg in args:
        if isinstance(arg, torch.dtype) and dtype is None:
            dtype = arg
        elif arg is not None and device is None and not isinstance(arg, torch.dtype):
            device = arg
        elif arg is not None:
            raise ParamsError(f"{where}.to was given {arg!r} beside another of its kind; pass one device, one dtype.")
    if dtype is not None and not isinstance(dtype, torch.dtype):
        raise ParamsError(f"{where}.to: dtype={dtype!r} is no torch dtype; pass one such as torch.bfloat16.")
    if device is None:
        return None, dtype
    if isinstance(device, bool) or not isinstance(device, str | int | torch.device):
        raise ParamsError(f"{where}.to: {device!r} is neither a device nor a dtype; pass 'cpu', 'cuda' or a dtype.")
    if device == "auto":
        raise EngineError(f"{where}.to: 'auto' is not a device; pass 'cuda', 'mps' or 'cpu'.")
    return choose_device(f"cuda:{device}" if isinstance(device, int) else str(device)), dtype
