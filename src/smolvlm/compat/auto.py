"""The reference's loaders by all the names that they have had: each gives a `ChatProcessor` or an `ImageTextToTextModel`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvlm.checkpoint.native_file import has_native_file
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.compat.arguments import UNUSED_ON_LOADING, local_folder, refuse_unknown, report_unused, require_torch
from smolvlm.config import load_configs
from smolvlm.errors import EngineError, ParamsError
from smolvlm.json_file import read_json

if TYPE_CHECKING:
    from smolvlm.compat.model import ImageTextToTextModel

# safetensors' names of the float types that an engine computes in.
_DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_QLORA = (
    "quantization_config is not supported: weights are loaded as they are. Leave it out (LoRA then trains beside them), or "
    "run `smolvlm finetune --method qlora`"
)


class AutoModelForImageTextToText:
    """`AutoModelForImageTextToText.from_pretrained(path)` gives an `ImageTextToTextModel`."""

    @staticmethod
    def from_pretrained(
        pretrained_model_name_or_path: str | os.PathLike[str],
        *,
        dtype: Any = None,
        torch_dtype: Any = None,
        device_map: Any = None,
        **kwargs: Any,
    ) -> ImageTextToTextModel:
        """A checkpoint by folder, Hub id or short name, on the CPU until `.to(...)` or `device_map` says otherwise.

        dtype (or torch_dtype): a torch dtype, its name, or "auto" (the default): what `config.json` names, else that of
        the weights. device_map: "auto", a device, or {"": device}.

        The weights' names and shapes are checked here; they are read when they are first used, once, in the final place
        and precision. Raises ModelNotFoundError, ConfigError, CheckpointError, EngineError, ParamsError for an unknown
        argument, and MissingExtraError without torch.
        """
        require_torch("running a model")
        from smolvlm.compat.model import ImageTextToTextModel
        from smolvlm.engines.torch_device import choose_device, choose_dtype

        kwargs = {name: value for name, value in kwargs.items() if value is not None}
        where = "AutoModelForImageTextToText.from_pretrained"
        if "quantization_config" in kwargs:
            raise ParamsError(f"{_QLORA}.")
        folder = local_folder(pretrained_model_name_or_path, kwargs)
        report_unused(kwargs, UNUSED_ON_LOADING, where)
        refuse_unknown(kwargs, where, "dtype, torch_dtype, device_map, revision and local_files_only")
        config, _ = load_configs(folder)
        if has_native_file(folder):
            raise EngineError(
                f"{folder}: is quantized for the native engine, which has no tensors to hand out; load the "
                "original checkpoint here, or this one with smolvlm.load."
            )
        reader = CheckpointReader(folder)
        config = reader.verify(config)
        name = _dtype_name(dtype if dtype is not None else torch_dtype)
        if name == "auto":
            name = _checkpoint_dtype(folder, reader)
        device = choose_device(_device_name(device_map))
        return ImageTextToTextModel(folder, config, device, choose_dtype(name, device))


def _dtype_name(dtype: Any) -> str:
    """A torch dtype, or its name with or without "torch.", as a name; None is "auto"."""
    import torch

    if dtype is None:
        return "auto"
    if not isinstance(dtype, str | torch.dtype):
        raise ParamsError(f"dtype={dtype!r}: expected a torch dtype, such as torch.bfloat16, or 'auto'.")
    return str(dtype).removeprefix("torch.")


def _checkpoint_dtype(folder: Path, reader: CheckpointReader) -> str:
    """The precision that the checkpoint asks for: `dtype` or `torch_dtype` of `config.json`, else its weights' own."""
    raw = read_json(folder / "config.json")
    for section in (raw, raw.get("text_config")):
        for key in ("dtype", "torch_dtype"):
            if isinstance(section, dict) and isinstance(section.get(key), str):
                return str(section[key]).removeprefix("torch.")
    kinds = {info.dtype for info in reader.infos.values()}
    name = _DTYPE_NAMES.get(next(iter(kinds))) if len(kinds) == 1 else None
    if name is None:
        raise EngineError(
            f"{folder}: config.json names no dtype and the weights are {', '.join(sorted(kinds))}; pass dtype=torch.float32 or another."
        )
    return name


def _device_name(device_map: Any) -> str:
    """The one device of a `device_map`; a model of this family is never spread over several."""
    if isinstance(device_map, dict):
        if set(device_map) != {""}:
            raise EngineError(
                "device_map spreads the model over several devices, which is not supported; pass device_map='auto' or one device."
            )
        device_map = device_map[""]
    if device_map is None:
        return "cpu"
    if device_map in ("balanced", "balanced_low_0", "sequential"):
        return "auto"
    return f"cuda:{device_map}" if isinstance(device_map, int) else str(device_map)
