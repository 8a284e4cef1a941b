"""Official tensor names <-> our modules, both ways. The names are the same; what differs is dtype, device and tying."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from smolvlm.checkpoint.adapter import Adapter
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.checkpoint.writer import RawTensor, write_checkpoint
from smolvlm.config import ModelConfig, ProcessorConfig
from smolvlm.errors import CheckpointError
from smolvlm.nn.model import SmolVLMForConditionalGeneration

# safetensors' names of float types. Others (integers, packed formats) are not weights of this graph.
_TORCH_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_SAFETENSORS_DTYPES = {dtype: name for name, dtype in _TORCH_DTYPES.items()}


def read_tensor(reader: CheckpointReader, name: str) -> Tensor:
    """One tensor in the dtype of the file, in memory of its own: the file may change or vanish afterwards."""
    info = reader.infos[name]
    if info.dtype not in _TORCH_DTYPES:
        raise CheckpointError(f"{info.file}: {name} has type {info.dtype}; expected a float type ({', '.join(_TORCH_DTYPES)}).")
    tensor = torch.empty(info.shape, dtype=_TORCH_DTYPES[info.dtype])
    tensor.view(-1).view(torch.uint8).numpy()[:] = reader.raw(name)
    reader.release(name)
    return tensor


def load_model(
    folder: Path,
    config: ModelConfig,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    on_tensor: Callable[[int, int], None] | None = None,
    adapter: Adapter | None = None,
) -> SmolVLMForConditionalGeneration:
    """The checkpoint in `folder` as a module in eval mode, one tensor at a time: the peak is one copy of the model.

    `on_tensor(done, total)` reports progress. `adapter` is added into the weights in float32, before they are rounded to
    `dtype`. Raises CheckpointError naming missing, unexpected and misshapen tensors, AdapterError for another's adapter.
    """
    reader = CheckpointReader(folder)
    config = reader.verify(config)
    if adapter is not None:
        adapter.check(reader, config)
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(config)
    names = [name for name in model.state_dict() if name in reader.infos]
    tensors: dict[str, Tensor] = {}
    for done, name in enumerate(names, start=1):
        tensor = read_tensor(reader, name)
        if adapter is not None and name in adapter:
            tensor = torch.from_numpy(adapter.merged(name, tensor.float().numpy()))
        tensors[name] = tensor.to(device=device, dtype=dtype)
        if on_tensor is not None:
            on_tensor(done, len(names))
    model.load_state_dict(tensors, strict=False, assign=True)  # assigned, not copied
    if config.tie_word_embeddings:
        model.lm_head.weight = model.model.text_model.embed_tokens.weight
    assert not any(p.is_meta for p in model.parameters()), "verify() passed a checkpoint with a tensor missing"
    return model.eval()


def save_model(
    model: SmolVLMForConditionalGeneration,
    folder: Path,
    processor_config: ProcessorConfig,
    tokenizer_json: str | Path,
    chat_template: str | None = None,
    *,
    overwrite: bool = False,
    extra_files: Mapping[str, str] | None = None,
) -> Path:
    """Write `model` as an official checkpoint in the dtype of its parameters; `transformers` loads it as it is.

    `extra_files`: texts that belong to it, such as its card, by name. Raises CheckpointError for a folder that is not empty
    (unless `overwrite`) or a disk that refuses.
    """
    dtype = str(model.lm_head.weight.dtype).removeprefix("torch.")
    return write_checkpoint(
        folder,
        official_tensors(model),
        model.config,
        processor_config,
        tokenizer_json,
        chat_template,
        dtype=dtype,
        overwrite=overwrite,
        extra_files=extra_files,
    )


def official_tensors(model: SmolVLMForConditionalGeneration) -> Iterator[tuple[str, RawTensor]]:
    """Each tensor of the official layout under its official name, one at a time."""
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        tensor = parameter.detach().cpu().contiguous()
        raw = tensor.view(-1).view(torch.uint8).numpy()
        yield name, RawTensor(_SAFETENSORS_DTYPES[tensor.dtype], tuple(tensor.shape), memoryview(raw))
