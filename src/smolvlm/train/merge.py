"""An adapter and its base as one official checkpoint. One tensor is in memory at a time, whatever the model's size."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from smolvlm.checkpoint.adapter import Adapter
from smolvlm.checkpoint.dtypes import CODES
from smolvlm.checkpoint.layout import tensor_shapes
from smolvlm.checkpoint.reader import INDEX_FILE, CheckpointReader
from smolvlm.checkpoint.writer import AnyTensor, write_checkpoint
from smolvlm.config import ModelConfig, load_configs
from smolvlm.errors import CheckpointError
from smolvlm.families.tensors import EMBED_TOKENS
from smolvlm.hub import resolve

_README = """# {base} with the adapter {adapter} merged in

A checkpoint in the official SmolVLM2 format: a base model, and a low-rank adapter added into its weights (`smolvlm merge`).

- base: `{base}`
- adapter: `{adapter}` ({count} weights changed)
- precision: {dtype}
"""
# What is written anew, or describes the base's files and not ours.
_NOT_COPIED = ("config.json", "tokenizer.json", INDEX_FILE)


def merge(
    model: str | Path,
    adapter: str | Path,
    out: str | Path,
    *,
    dtype: str | None = None,
    overwrite: bool = False,
    on_tensor: Callable[[int, int], None] | None = None,
) -> Path:
    """Write `model` with `adapter` added into its weights to the folder `out`, in the official layout; returns the folder.

    dtype: "float32", "bfloat16" or "float16"; None keeps the base's. The sum is made in float32 and rounded once. The
    base's tokenizer, template and processor files are copied as they are. Raises AdapterError for an adapter of another
    model, CheckpointError for an `out` that is not empty, or a full disk; nothing is left behind then.
    """
    added = Adapter(adapter)
    folder = resolve(str(model))
    config, processor_config = load_configs(folder)
    with CheckpointReader(folder) as reader:
        config = reader.verify(config)
        added.check(reader, config)
        code = reader.infos[EMBED_TOKENS].dtype
        kept = next((name for name, known in CODES.items() if known == code), "float32")
        readme = _README.format(
            base=_name(model), adapter=_name(adapter), dtype=dtype or kept, count=len(added.changes) + len(added.replaced)
        )
        return write_checkpoint(
            out,
            _merged(reader, config, added, on_tensor),
            config,
            processor_config,
            folder / "tokenizer.json",
            None,
            dtype=dtype or kept,
            overwrite=overwrite,
            extra_files={**companions(folder), "README.md": readme},
        )


def companions(folder: Path) -> dict[str, str]:
    """The texts beside a checkpoint's weights that a copy of it keeps word for word, by file name."""
    texts = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in (".json", ".jinja") and path.name not in _NOT_COPIED and not path.name.startswith("."):
            try:
                texts[path.name] = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise CheckpointError(f"{path}: cannot be read as text ({error}).") from None
    return texts


def _merged(
    reader: CheckpointReader, config: ModelConfig, adapter: Adapter, on_tensor: Callable[[int, int], None] | None
) -> Iterator[tuple[str, AnyTensor]]:
    shapes = tensor_shapes(config)
    for done, name in enumerate(shapes, start=1):
        yield name, adapter.merged(name, reader.float32(name))
        reader.release(name)
        if on_tensor is not None:
            on_tensor(done, len(shapes))


def _name(path: str | Path) -> str:
    """A folder's last name, a Hub id as it is: a model card should not tell how somebody's disk is laid out."""
    text = os.fspath(path)
    return Path(text).expanduser().resolve().name if Path(text).expanduser().exists() else text
