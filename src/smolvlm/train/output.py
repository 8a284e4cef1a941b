"""The end of a run: an official-format checkpoint in the run's own folder, beside its log."""

from __future__ import annotations

import shutil
from pathlib import Path

import torch
from torch import Tensor

from smolvlm.config import load_configs
from smolvlm.errors import CheckpointError, TrainingError
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.weights import save_model
from smolvlm.prompt.template import ChatTemplate
from smolvlm.train.processes import full_tensor

_PART = ".checkpoint"


def is_finished(out: Path) -> bool:
    """Whether a run's final checkpoint stands in `out`: `config.json` is moved there last."""
    return (out / "config.json").is_file()


def whole_model(net: SmolVLMForConditionalGeneration, *, keep: bool) -> SmolVLMForConditionalGeneration | None:
    """`net` with its shards gathered, on the CPU. Every process must call it; `keep` who wants the model, others get None."""
    tensors: dict[str, Tensor] = {}
    for name, tensor in net.state_dict().items():
        whole = full_tensor(tensor.detach())
        if keep:
            tensors[name] = whole.cpu()
    if not keep:
        return None
    with torch.device("meta"):
        model = SmolVLMForConditionalGeneration(net.config)
    model.load_state_dict(tensors, assign=True)
    if net.config.tie_word_embeddings:
        model.lm_head.weight = model.model.text_model.embed_tokens.weight
    return model.eval()


def save_output(model: SmolVLMForConditionalGeneration, out: Path, source: Path) -> Path:
    """Write `model` into `out` with the tokenizer, template and pixel settings of the checkpoint folder `source`.

    Raises TrainingError when the disk refuses; the run's saves stay, and the same command tries again.
    """
    part = out / _PART
    try:
        shutil.rmtree(part, ignore_errors=True)
        _, processor_config = load_configs(source)
        template = ChatTemplate.from_folder(source).source
        save_model(model, part, processor_config, source / "tokenizer.json", template)
        names = sorted((path.name for path in part.iterdir()), key=lambda name: name == "config.json")
        for name in names:
            (part / name).replace(out / name)
        part.rmdir()
    except (OSError, CheckpointError) as error:
        raise TrainingError(
            f"the trained model could not be written to {out}: {error}; make room and give the same "
            "command again: the run's saves are whole."
        ) from None
    return out
