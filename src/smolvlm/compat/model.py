"""`AutoModelForImageTextToText`: the reference's model object, standing on our engine."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.compat.arguments import (
    UNUSED_ON_LOADING,
    device_and_dtype,
    local_folder,
    refuse_unknown,
    report_unused,
    require_torch,
)
from smolvlm.compat.generating import Prompts, Streamer, generate_batch
from smolvlm.compat.generation_arguments import GenerateArguments, read_generation_config
from smolvlm.config import ModelConfig, load_configs
from smolvlm.engines.base import Engine
from smolvlm.engines.select import make_engine
from smolvlm.errors import EngineError, ParamsError, PromptError
from smolvlm.json_file import read_json
from smolvlm.prompt.tokenizer import PromptTokenizer

if TYPE_CHECKING:
    import torch

# safetensors' names of the float types that an engine computes in.
_DTYPE_NAMES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
_INPUTS = ("input_ids", "attention_mask", "pixel_values", "pixel_attention_mask")


class AutoModelForImageTextToText:
    """`AutoModelForImageTextToText.from_pretrained(path)` gives an `ImageTextToTextModel`."""

    @staticmethod
    def from_pretrained(pretrained_model_name_or_path: str | os.PathLike[str], *, dtype: Any = None,
                        torch_dtype: Any = None, device_map: Any = None,
                        **kwargs: Any) -> ImageTextToTextModel:  # fmt: skip
        """A checkpoint by folder, Hub id or short name, on the CPU until `.to(...)` or `device_map` says otherwise.

        dtype (or torch_dtype): a torch dtype, its name, or "auto" (the default): what `config.json` names, else that of
        the weights. device_map: "auto", a device, or {"": device}.

        The weights' names and shapes are checked here; they are read at the first `generate`, once, in the final place
        and precision. Raises ModelNotFoundError, ConfigError, CheckpointError, EngineError, ParamsError for an unknown
        argument, and MissingExtraError without torch.
        """
        require_torch("running a model")
        from smolvlm.engines.torch_device import choose_device, choose_dtype

        folder = local_folder(pretrained_model_name_or_path, kwargs)
        report_unused(kwargs, UNUSED_ON_LOADING, "AutoModelForImageTextToText.from_pretrained")
        refuse_unknown(kwargs, "AutoModelForImageTextToText.from_pretrained",
                       "dtype, torch_dtype, device_map, revision and local_files_only")  # fmt: skip
        config, _ = load_configs(folder)
        reader = CheckpointReader(folder)
        reader.verify(config)
        name = _dtype_name(dtype if dtype is not None else torch_dtype)
        if name == "auto":
            name = _checkpoint_dtype(folder, reader)
        device = choose_device(_device_name(device_map))
        return ImageTextToTextModel(folder, config, device, choose_dtype(name, device))


class ImageTextToTextModel:
    """A loaded checkpoint under the reference's names. It answers; it has no modules, gradients or hidden states."""

    def __init__(self, folder: Path, config: ModelConfig, device: torch.device, dtype: torch.dtype) -> None:
        self.config = config
        self.name_or_path = str(folder)
        self.training = False
        self._folder, self._device, self._dtype = folder, device, dtype
        self._generation_config = read_generation_config(folder)
        self._engine: Engine | None = None
        self._tokenizer: PromptTokenizer | None = None
        self._lock = threading.Lock()

    @property
    def device(self) -> torch.device:
        return self._device

    @property
    def dtype(self) -> torch.dtype:
        return self._dtype

    @property
    def engine(self) -> Engine:
        """The engine behind it; the first access reads the weights. Raises CheckpointError or EngineError."""
        with self._lock:
            if self._engine is None:
                device, dtype = str(self._device), str(self._dtype).removeprefix("torch.")
                self._engine = make_engine(self._folder, self.config, engine="torch", device=device, dtype=dtype)
            return self._engine

    def to(self, *args: Any, **kwargs: Any) -> ImageTextToTextModel:
        """Move to a device, a dtype or both, in place; weights that are loaded already are read anew.

        Raises EngineError for a device that this machine lacks or a dtype that the engine does not compute in.
        """
        device, dtype = device_and_dtype(args, kwargs, "the model")
        from smolvlm.engines.torch_device import choose_dtype

        device = self._device if device is None else device
        dtype = self._dtype if dtype is None else choose_dtype(str(dtype).removeprefix("torch."), device)
        with self._lock:
            if (device, dtype) != (self._device, self._dtype):
                self._device, self._dtype, self._engine = device, dtype, None
        return self

    def cuda(self, device: int | str | None = None) -> ImageTextToTextModel:
        """Move to a CUDA device, the first one unless said otherwise."""
        return self.to("cuda" if device is None else device)

    def cpu(self) -> ImageTextToTextModel:
        """Move to the CPU."""
        return self.to("cpu")

    def float(self) -> ImageTextToTextModel:
        """Compute in float32."""
        import torch

        return self.to(torch.float32)

    def half(self) -> ImageTextToTextModel:
        """Compute in float16."""
        import torch

        return self.to(torch.float16)

    def bfloat16(self) -> ImageTextToTextModel:
        """Compute in bfloat16."""
        import torch

        return self.to(torch.bfloat16)

    def eval(self) -> ImageTextToTextModel:
        """Itself: it is never in any other mode."""
        return self

    def generate(self, inputs: Any = None, *, streamer: Streamer | None = None, **kwargs: Any) -> torch.Tensor:
        """Continue each prompt; int64 (batch, prompt + new tokens) on the device of `input_ids`, padded on the right.

        `kwargs` are what the processor returned (input_ids, attention_mask, pixel_values, pixel_attention_mask) and the
        reference's max_new_tokens, max_length, do_sample, temperature, top_k, top_p, min_p, repetition_penalty,
        no_repeat_ngram_size, stop_strings, eos_token_id and pad_token_id, with its defaults. Without do_sample=True it
        is greedy; sampling draws its seed from torch's generator, so `torch.manual_seed` makes it repeatable.
        `streamer` gets the prompt, then one token a row a step, then `end()`, also when generation fails.

        Raises PromptError for inputs that do not belong together, ParamsError for arguments, ContextLengthError.
        """
        import torch

        tensors = {name: kwargs.pop(name) for name in _INPUTS if name in kwargs}
        if inputs is not None:
            if "input_ids" in tensors:
                raise PromptError("generate was given both inputs and input_ids, which are the same; pass one of them.")
            tensors["input_ids"] = inputs
        if tensors.get("input_ids") is None:
            raise PromptError("generate needs input_ids; pass what the processor returned, as generate(**inputs).")
        arguments = GenerateArguments.of(kwargs, self._generation_config, self.config)
        prompts = Prompts.of(self.config, arguments.pad_token_id, arguments.eos_token_ids, **tensors)
        arguments.new_tokens(prompts.padded.shape[1])  # refuse before the weights are read
        seeds: list[int] | None = None
        if not arguments.params.greedy:
            seeds = torch.randint(2**63 - 1, (len(prompts.rows),)).tolist()
        decode = self._decode if arguments.params.stop else _no_text
        try:
            ids = generate_batch(self.engine, prompts, arguments, decode, seeds, streamer, torch.from_numpy)
        finally:
            if streamer is not None:
                streamer.end()  # whoever reads it in another thread must not wait for ever
        device = tensors["input_ids"].device if isinstance(tensors["input_ids"], torch.Tensor) else self._device
        return torch.from_numpy(ids).to(device)

    def _decode(self, ids: Any) -> str:
        if self._tokenizer is None:
            self._tokenizer = PromptTokenizer.from_folder(self._folder)
        return self._tokenizer.decode(ids, skip_special_tokens=True)


def _no_text(ids: Any) -> str:
    """Nobody reads the text of an answer that has no stop strings: `generate` returns ids."""
    del ids
    return ""


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
        raise EngineError(f"{folder}: config.json names no dtype and the weights are {', '.join(sorted(kinds))}; pass "
                          "dtype=torch.float32 or another.")  # fmt: skip
    return name


def _device_name(device_map: Any) -> str:
    """The one device of a `device_map`; a model of this family is never spread over several."""
    if isinstance(device_map, dict):
        if set(device_map) != {""}:
            raise EngineError("device_map spreads the model over several devices, which is not supported; pass "
                              "device_map='auto' or one device.")  # fmt: skip
        device_map = device_map[""]
    if device_map is None:
        return "cpu"
    if device_map in ("balanced", "balanced_low_0", "sequential"):
        return "auto"
    return f"cuda:{device_map}" if isinstance(device_map, int) else str(device_map)
