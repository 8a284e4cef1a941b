"""`save_pretrained` of the model and of the processor: official files into a folder that may hold others already."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from smolvlm.checkpoint.reader import INDEX_FILE, WEIGHTS_FILE
from smolvlm.config import ProcessorConfig, processor_preset
from smolvlm.errors import AdapterError, CheckpointError, ParamsError
from smolvlm.prompt.tokenizer_file import read_tokenizer_text

if TYPE_CHECKING:
    from smolvlm.nn.model import SmolVLMForConditionalGeneration

_MODEL_FILES = ("config.json", "generation_config.json")
_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
)


def save_model_files(net: SmolVLMForConditionalGeneration, folder: Path, source: Path) -> None:
    """config.json, generation_config.json and the weights: written whole beside the folder, then moved in one by one.

    Raises AdapterError while adapters are not merged, CheckpointError for a disk that refuses.
    """
    from smolvlm.nn.weights import save_model

    if any(".lora_" in name or ".base_layer." in name for name in net.state_dict()):
        raise AdapterError(
            "the model has an adapter that is not merged; save the adapter with peft's save_pretrained, or call merge_and_unload() first."
        )
    _make(folder)
    with _refusing(folder), tempfile.TemporaryDirectory(dir=folder, prefix=".saving-") as kept:
        made = save_model(net, Path(kept) / "model", processor_preset(net.config), read_tokenizer_text(source / "tokenizer.json"))
        weights = [path.name for path in made.iterdir() if path.suffix == ".safetensors" or path.name == INDEX_FILE]
        for old in folder.iterdir():  # an index or shards of an earlier save would win over the new file
            if old.name not in weights and (old.name in (INDEX_FILE, WEIGHTS_FILE) or old.match("model-*-of-*.safetensors")):
                old.unlink()
        for name in (*weights, *_MODEL_FILES):
            os.replace(made / name, folder / name)


def save_processor_files(config: ProcessorConfig, class_prefix: str, folder: Path, source: Path) -> list[str]:
    """The pixel settings as they are now, and the tokenizer's files as they came. `class_prefix` is the family's.
    Returns the names."""
    _make(folder)
    settings = {
        "preprocessor_config.json": config.preprocessor_dict(class_prefix),
        "processor_config.json": config.processor_dict(class_prefix),
    }
    for name, content in settings.items():
        with _refusing(folder):
            (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return [*settings, *save_tokenizer_files(folder, source)]


def save_tokenizer_files(folder: Path, source: Path) -> list[str]:
    """The tokenizer's files as they came. Returns the names."""
    _make(folder)
    names = [name for name in _TOKENIZER_FILES if (source / name).is_file()]
    for name in names:
        if not (folder / name).exists() or not (folder / name).samefile(source / name):
            with _refusing(folder):
                shutil.copyfile(source / name, folder / name)
    return names


def refuse_upload(what: str, repo_id: Any) -> NoReturn:
    """Raise ParamsError: this package sends nothing anywhere."""
    name = repo_id if isinstance(repo_id, str) and len(repo_id) < 200 else "OWNER/NAME"
    raise ParamsError(f"push_to_hub: {what} is not uploaded from here; call save_pretrained('out') and run `hf upload {name} out`.")


def _make(folder: Path) -> None:
    with _refusing(folder):
        folder.mkdir(parents=True, exist_ok=True)


@contextmanager
def _refusing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror}); name another folder.") from None
