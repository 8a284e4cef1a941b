"""Which device and precision PyTorch should use on this machine, said aloud and never silently changed."""

from __future__ import annotations

import torch

from smolvlm.errors import EngineError

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str) -> torch.device:
    """`auto`: CUDA, else Apple's MPS, else the CPU. A named device that is absent is an error, not a fallback."""
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise EngineError(f"device={device!r} is not a device; use auto, cpu, cuda, cuda:N or mps.") from None
    present = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not present.get(chosen.type, False):
        raise EngineError(f"device={device!r} is not available with this PyTorch; use device='auto' or 'cpu'.")
    if chosen.type == "cuda" and (chosen.index or 0) >= torch.cuda.device_count():
        raise EngineError(f"device={device!r}: this machine has {torch.cuda.device_count()} CUDA devices.")
    return chosen


def choose_dtype(dtype: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 where the hardware multiplies it, float16 on MPS and older GPUs, float32 on other CPUs."""
    if dtype == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
        if device.type == "mps":
            return torch.float16
        return torch.bfloat16 if _cpu_multiplies_bfloat16() else torch.float32
    if dtype not in DTYPES:
        raise EngineError(f"dtype={dtype!r} is not supported by the torch engine; use auto, {', '.join(DTYPES)}.")
    return DTYPES[dtype]


def _cpu_multiplies_bfloat16() -> bool:
    """AVX-512 BF16, AMX or ARM's BF16: elsewhere PyTorch emulates it, slower than float32."""
    capabilities = torch.cpu.get_capabilities() if hasattr(torch.cpu, "get_capabilities") else {}
    names = ("avx512_bf16", "amx_bf16", "arm_bf16")
    if any(capabilities.get(name, False) for name in names):
        return True
    probes = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(getattr(torch.cpu, probe, bool)() for probe in probes)
