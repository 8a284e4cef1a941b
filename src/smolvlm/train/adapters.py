"""LoRA, DoRA and QLoRA on our own module, through `peft` and `bitsandbytes`; saved as peft saves them.

The layers are put into the module where it stands: it keeps its type and its forward, and the frozen base is one switch
away (`without_adapter`), which is what a preference objective compares with.
"""

from __future__ import annotations

import importlib
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from smolvlm.checkpoint.adapter import write_adapter
from smolvlm.checkpoint.dtypes import FloatArray
from smolvlm.checkpoint.fingerprint import fingerprint
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.errors import AdapterError, MissingExtraError
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.options.declare import check, option

METHODS = ("lora", "dora", "qlora")
_NAME = "default"  # peft's own name for the only adapter
_PARTS = ("model.text_model.layers.", "model.connector.")
_VISION = "model.vision_model.encoder.layers."


@dataclass(frozen=True)
class AdapterOptions:
    """Which adapter, and how large. The sum that is added is alpha / rank times B @ A.

    method: "lora" (arXiv 2106.09685), "dora" (2402.09353) or "qlora" (2305.14314: the frozen linear layers in 4-bit nf4).
    Every linear layer of decoder and connector gets one; `vision` adds those of the vision encoder.
    """

    method: str = option("lora", "Which adapter.", choices=METHODS)
    rank: int = option(16, "Rank of what is added.", least=1, most=1024, hint="8 to 64 is usual")
    alpha: float = option(32.0, "What is added is alpha / rank times B @ A.", above=0)
    dropout: float = option(0.0, "Share of the inputs that is left out.", least=0, below=1)
    vision: bool = False

    def __post_init__(self) -> None:
        check(self, AdapterError)


def target_modules(net: nn.Module, *, vision: bool) -> list[str]:
    """The module paths that get an adapter: every linear layer of decoder and connector, with `vision` of the encoder."""
    prefixes = (*_PARTS, _VISION) if vision else _PARTS
    return [name for name, module in net.named_modules() if isinstance(module, nn.Linear) and name.startswith(prefixes)]


def add_adapter(net: SmolVLMForConditionalGeneration, options: AdapterOptions, *, seed: int = 0) -> None:
    """Freeze `net` and put a new adapter into it; at first it changes nothing (B is zero).

    "qlora" also replaces the target layers by nf4 ones. Raises AdapterError where an adapter is in place already,
    MissingExtraError without peft or bitsandbytes.
    """
    if has_adapter(net):
        raise AdapterError("the model has an adapter already; merge that one first.")
    peft = _import_peft()
    targets = target_modules(net, vision=options.vision)
    if options.method == "qlora":
        quantize(net, targets)
    config = peft.LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        use_dora=options.method == "dora",
        target_modules=targets,
        bias="none",
    )
    net.requires_grad_(False)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        peft.inject_adapter_in_model(config, net, adapter_name=_NAME)
    for parameter in adapter_parameters(net).values():
        parameter.data = parameter.data.float()  # whatever the base's precision: the optimizer's steps are small


def quantize(net: SmolVLMForConditionalGeneration, names: list[str]) -> None:
    """Replace these linear layers by bitsandbytes' 4-bit ones (nf4, double quantization), in place. They cannot be trained."""
    bnb = _import("bitsandbytes", "QLoRA")
    for name in names:
        parent = net.get_submodule(name.rpartition(".")[0])
        old = net.get_submodule(name)
        assert isinstance(old, nn.Linear), f"{name} is no linear layer"
        new = bnb.nn.Linear4bit(
            old.in_features, old.out_features, bias=old.bias is not None, compute_dtype=old.weight.dtype, quant_type="nf4", device="meta"
        )
        new.weight = bnb.nn.Params4bit(old.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True, module=new)
        if old.bias is not None:
            new.bias = nn.Parameter(old.bias.data, requires_grad=False)
        new = new.to(old.weight.device)  # the move is what quantizes
        if isinstance(parent, nn.ModuleDict):
            parent[name.rpartition(".")[2]] = new
        else:
            setattr(parent, name.rpartition(".")[2], new)
    net.is_loaded_in_4bit = True  # type: ignore[assignment]  # how peft knows to wrap 4-bit layers


def has_adapter(net: nn.Module) -> bool:
    """Whether `add_adapter` was here."""
    return hasattr(net, "peft_config")


def adapter_parameters(net: nn.Module) -> dict[str, nn.Parameter]:
    """The adapter's own parameters under their names in the module."""
    return {name: p for name, p in net.named_parameters() if ".lora_" in name}


def adapter_tensors(net: SmolVLMForConditionalGeneration) -> dict[str, FloatArray]:
    """The adapter as peft names it in its files, without the prefix of its wrapper: float32 copies."""
    suffix = f".{_NAME}"
    found: dict[str, FloatArray] = {}
    for name, parameter in adapter_parameters(net).items():
        if ".lora_magnitude_vector" in name:
            name = name.removesuffix(".weight")
            key = name.removesuffix(suffix)
        else:
            key = name.replace(f"{suffix}.weight", ".weight")
        found[key] = parameter.detach().float().cpu().numpy().copy()
    return found


def save_adapter(net: SmolVLMForConditionalGeneration, folder: Path, base: Path, base_name: str | None = None) -> Path:
    """Write the adapter in peft's format, with the name and the fingerprint of the checkpoint folder `base`.

    Raises AdapterError for a model without an adapter, CheckpointError for a folder that is not empty or a full disk.
    """
    if not has_adapter(net):
        raise AdapterError("the model has no adapter to save.")
    config: Any = net.peft_config[_NAME]  # type: ignore[index]
    with CheckpointReader(base) as reader:
        reader.verify(net.config)
        mark = fingerprint(reader, net.config)
    return write_adapter(folder, adapter_tensors(net), _plain(config.to_dict()), base_name or str(base.resolve()), mark)


@contextmanager
def without_adapter(net: nn.Module) -> Iterator[None]:
    """Inside the `with` block the model is its frozen base."""
    layers = [module for module in net.modules() if hasattr(module, "enable_adapters") and hasattr(module, "lora_A")]
    for layer in layers:
        layer._disable_adapters = True  # type: ignore[assignment]  # peft's own switch also flips requires_grad, which an optimizer would notice
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False  # type: ignore[assignment]


def _plain(value: Any) -> Any:
    """peft's configuration as JSON can hold it: sets sorted, enumerations by their value."""
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    value = getattr(value, "value", value)
    json.dumps(value)
    return value


def _import(name: str, what: str) -> Any:
    chatty = logging.getLogger("bitsandbytes")  # peft imports it too; on a CPU it advises to install more
    level = chatty.level
    chatty.setLevel(logging.ERROR)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise MissingExtraError(f"{what} ({name})", "train") from error
    finally:
        chatty.setLevel(level)


def _import_peft() -> Any:
    """peft, which imports transformers, which imports torchvision if it is there. A torchvision that was built for another
    torch fails in that; nothing of it is needed, so it is hidden for the moment."""
    if "peft" in sys.modules or "transformers" in sys.modules:
        return _import("peft", "training an adapter")
    try:
        importlib.import_module("torchvision")
    except ImportError:
        return _import("peft", "training an adapter")
    except RuntimeError:
        for name in [name for name in sys.modules if name.split(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None  # type: ignore[assignment]
        try:
            return _import("peft", "training an adapter")
        finally:
            del sys.modules["torchvision"]
    return _import("peft", "training an adapter")
