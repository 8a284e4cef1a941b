"""Writing a checkpoint folder in the official layout: whole or not at all.

Everything goes into a temporary sibling folder that is moved into place when complete, so a full disk or a crash leaves
what was there before.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from smolvlm.checkpoint.dtypes import CODES, FLOATS, ITEM_SIZES, Bytes, from_float32, to_float32
from smolvlm.checkpoint.folder import FolderInMaking, sync
from smolvlm.checkpoint.header import build_header
from smolvlm.checkpoint.layout import Shapes, is_tolerated, tensor_shapes
from smolvlm.checkpoint.reader import INDEX_FILE, WEIGHTS_FILE
from smolvlm.config import ModelConfig, ProcessorConfig
from smolvlm.errors import CheckpointError, is_failure
from smolvlm.families import SMOLVLM, family_of
from smolvlm.families.grammar import FAKE_IMAGE_TOKEN, GLOBAL_IMAGE_TOKEN, IMAGE_TOKEN
from smolvlm.families.tensors import LM_HEAD

logger = logging.getLogger(__name__)

MAX_SHARD_BYTES = 5_000_000_000
_UNK = "<|endoftext|>"
_CHUNK = 1 << 22  # elements converted at a time, so that a large tensor is never held twice


@dataclass(frozen=True)
class RawTensor:
    """A tensor as its little-endian bytes, for formats that NumPy lacks: `dtype` is the file's code, e.g. "BF16"."""

    dtype: str
    shape: tuple[int, ...]
    data: bytes | bytearray | memoryview | Bytes

    def flat(self) -> Bytes:
        return np.frombuffer(self.data, dtype=np.uint8)


AnyTensor: TypeAlias = npt.NDArray[Any] | RawTensor


def write_checkpoint(
    folder: str | Path,
    tensors: Mapping[str, AnyTensor] | Iterable[tuple[str, AnyTensor]],
    config: ModelConfig,
    processor_config: ProcessorConfig,
    tokenizer_json: str | Path,
    chat_template: str | None,
    *,
    dtype: str = "float32",
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    extra_files: Mapping[str, str] | None = None,
) -> Path:
    """Write the official files and return the folder. `transformers` loads it without a missing or unexpected key.

    `tensors`: official name -> NumPy float array or RawTensor; an iterable of pairs is consumed one at a time, in any
    order, so a model larger than the memory can pass through. An `lm_head.weight` beside tied embeddings is not
    written. `tokenizer_json`: the text of `tokenizer.json`, or a Path to one. `extra_files`: name -> text, added
    (`README.md`) or in place of the generated one (`tokenizer_config.json`). `overwrite` replaces an existing
    checkpoint folder as a whole, once the new one is complete.

    Raises CheckpointError for tensors that do not fit the configuration, an unknown dtype, a folder that is not empty,
    or a disk that refuses; nothing is left behind then.
    """
    if dtype not in CODES:
        raise CheckpointError(f"dtype={dtype!r} is not written; choose one of {', '.join(CODES)}.")
    if max_shard_bytes < 1:
        raise CheckpointError(f"max_shard_bytes={max_shard_bytes} must be positive.")
    shapes = tensor_shapes(config)
    texts = _json_files(config, processor_config, _tokenizer_text(tokenizer_json), chat_template, dtype)
    for name, text in (extra_files or {}).items():
        if Path(name).name != name or name.startswith(".") or name.endswith(".safetensors") or "\\" in name:
            raise CheckpointError(f"extra_files: {name!r} is not the plain name of a text file.")
        texts[name] = text
    shards = plan_shards(shapes, ITEM_SIZES[CODES[dtype]], max_shard_bytes)
    total = sum(math.prod(shape) for shape in shapes.values()) * ITEM_SIZES[CODES[dtype]]
    with FolderInMaking(Path(folder), overwrite=overwrite, needed_bytes=total) as making:
        if len(shards) > 1:
            texts[INDEX_FILE] = _index(shards, shapes, total)
        for name, text in texts.items():
            making.write_text(name, text)
        _write_weights(making.path, shards, shapes, tensors, config, CODES[dtype])
        making.finish()
    logger.info("wrote %s: %d tensors, %d bytes, %s", folder, len(shapes), total, dtype)
    return Path(folder)


def plan_shards(shapes: Shapes, item_bytes: int, max_shard_bytes: int) -> dict[str, list[str]]:
    """File name -> the tensors in it, filled greedily by name, layers by number, as the reference writer does.

    A tensor above the limit gets a file of its own, in front of the one that is being filled.
    """
    groups: list[list[str]] = []
    filling: list[str] = []
    used = 0
    for name, shape in sorted(shapes.items(), key=lambda item: _natural(item[0])):
        nbytes = math.prod(shape) * item_bytes
        if nbytes > max_shard_bytes:
            groups.append([name])
            continue
        if used + nbytes > max_shard_bytes:
            groups.append(filling)
            filling, used = [], 0
        filling.append(name)
        used += nbytes
    groups += [filling] if filling else []
    if len(groups) == 1:
        return {WEIGHTS_FILE: groups[0]}
    return {f"model-{i:05d}-of-{len(groups):05d}.safetensors": group for i, group in enumerate(groups, start=1)}


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 2 before layer 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in name.split(".")]


def _write_weights(
    path: Path,
    shards: Mapping[str, Sequence[str]],
    shapes: Shapes,
    tensors: Mapping[str, AnyTensor] | Iterable[tuple[str, AnyTensor]],
    config: ModelConfig,
    code: str,
) -> None:
    """Lay out every file first, then put each tensor in its place as it comes."""
    places: dict[str, tuple[BinaryIO, int]] = {}
    with ExitStack() as stack:
        files = []
        for file_name, names in shards.items():
            header, offsets = build_header({name: (code, shapes[name]) for name in sorted(names)})
            file = stack.enter_context((path / file_name).open("wb", buffering=1 << 20))
            file.write(header)
            files.append(file)
            places |= {name: (file, offset) for name, offset in offsets.items()}
        for name, tensor in tensors.items() if isinstance(tensors, Mapping) else tensors:
            if is_tolerated(name) or (name == LM_HEAD and config.tie_word_embeddings):
                continue
            if name not in shapes:
                raise CheckpointError(f"{name[:120]!r} is not a tensor of this configuration; use the official names.")
            if name not in places:
                raise CheckpointError(f"{name} came twice.")
            file, offset = places.pop(name)
            file.seek(offset)
            _put(file, name, tensor, shapes[name], code)
        if places:
            shown = ", ".join(list(places)[:3])
            raise CheckpointError(
                f"{len(places)} tensors of this configuration were not given: {shown}{' and more' if len(places) > 3 else ''}."
            )
        for file in files:
            sync(file)


def _put(file: BinaryIO, name: str, tensor: AnyTensor, shape: tuple[int, ...], code: str) -> None:
    if tuple(tensor.shape) != shape:
        raise CheckpointError(f"{name} has shape {tuple(tensor.shape)}; this configuration needs {shape}.")
    try:
        if isinstance(tensor, RawTensor):
            _put_raw(file, tensor, code)
            return
        if tensor.dtype.kind != "f":
            raise CheckpointError(f"NumPy {tensor.dtype} is not float.")
        flat = tensor.reshape(-1)
        for start in range(0, flat.size, _CHUNK):
            file.write(from_float32(flat[start : start + _CHUNK].astype(np.float32, copy=False), code).data)
    except CheckpointError as error:
        raise CheckpointError(f"{name}: {error}") from None


def _put_raw(file: BinaryIO, tensor: RawTensor, code: str) -> None:
    flat = tensor.flat()
    if tensor.dtype not in FLOATS:
        raise CheckpointError(f"{tensor.dtype} is not one of the float formats ({', '.join(FLOATS)}).")
    if flat.size != math.prod(tensor.shape) * ITEM_SIZES[tensor.dtype]:
        raise CheckpointError(f"{flat.size} bytes do not make {tensor.shape} in {tensor.dtype}.")
    if tensor.dtype == code:
        file.write(flat.data)
        return
    step = _CHUNK * ITEM_SIZES[tensor.dtype]
    for start in range(0, flat.size, step):
        file.write(from_float32(to_float32(flat[start : start + step], tensor.dtype), code).data)


def _index(shards: Mapping[str, Sequence[str]], shapes: Shapes, total: int) -> str:
    weight_map = {name: file for file, names in shards.items() for name in names}
    parameters = sum(math.prod(shape) for shape in shapes.values())
    return _json({"metadata": {"total_parameters": parameters, "total_size": total}, "weight_map": dict(sorted(weight_map.items()))})


def _tokenizer_text(tokenizer_json: str | Path) -> str:
    try:
        return tokenizer_json.read_text(encoding="utf-8") if isinstance(tokenizer_json, Path) else tokenizer_json
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"{tokenizer_json}: cannot be read ({error}).") from None


def _json_files(
    config: ModelConfig, processor_config: ProcessorConfig, tokenizer_json: str, chat_template: str | None, dtype: str
) -> dict[str, str]:
    """Every file beside the weights, by name."""
    files = {
        # `torch_dtype` is the name that every version of the reference reads; newer ones also say `dtype`.
        "config.json": _json({**config.to_dict(), "torch_dtype": dtype}),
        "generation_config.json": _json(config.generation_dict()),
        "preprocessor_config.json": _json(processor_config.preprocessor_dict(family_of(config.model_type).class_prefix)),
        "processor_config.json": _json(processor_config.processor_dict(family_of(config.model_type).class_prefix)),
        "tokenizer.json": tokenizer_json,
        "tokenizer_config.json": _json(_tokenizer_config(config, tokenizer_json, chat_template)),
    }
    if chat_template is not None:  # the published files' own place, read by every version of the reference since 4.47
        files["chat_template.json"] = _json({"chat_template": chat_template})
    return files


def _tokenizer_config(config: ModelConfig, tokenizer_json: str, chat_template: str | None) -> dict[str, Any]:
    """`tokenizer_config.json` with the special tokens by name, looked up by the configuration's ids."""
    try:
        tokenizer = Tokenizer.from_str(tokenizer_json)
    except BaseException as error:
        if not is_failure(error):
            raise
        raise CheckpointError(f"the tokenizer cannot be read ({str(error)[:200]}); expected the text of a tokenizer.json file.") from None
    vocab = tokenizer.get_vocab(with_added_tokens=True)
    family = family_of(config.model_type, vocab)
    largest = max((i for token, i in vocab.items() if token not in family.surplus_tokens), default=0)
    if largest >= config.text.vocab_size:
        raise CheckpointError(f"the tokenizer has id {largest}, beyond vocab_size={config.text.vocab_size}.")
    if tokenizer.id_to_token(config.image_token_id) != IMAGE_TOKEN:
        raise CheckpointError(
            f"the tokenizer has {tokenizer.id_to_token(config.image_token_id)!r} at "
            f"image_token_id={config.image_token_id}; expected '<image>'."
        )
    names = {"bos_token": config.text.bos_token_id, "eos_token": config.eos_token_ids[0], "pad_token": config.text.pad_token_id}
    raw: dict[str, Any] = {key: tokenizer.id_to_token(token) for key, token in names.items()}
    if missing := [key for key, token in raw.items() if token is None]:
        raise CheckpointError(f"the tokenizer has no {', '.join(f'{key}_id={names[key]}' for key in missing)}.")
    if tokenizer.token_to_id(_UNK) is not None:
        raw["unk_token"] = _UNK
    media = {
        "image_token": IMAGE_TOKEN,
        "fake_image_token": FAKE_IMAGE_TOKEN,
        "global_image_token": GLOBAL_IMAGE_TOKEN,
        "end_of_utterance_token": SMOLVLM.prompt.end_of_turn[0],
    }
    raw |= {
        "tokenizer_class": "GPT2Tokenizer",
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": config.text.max_position_embeddings,
        "processor_class": f"{family.class_prefix}Processor",
        "extra_special_tokens": {k: token for k, token in media.items() if tokenizer.token_to_id(token) is not None},
    }
    if chat_template is not None:
        raw["chat_template"] = chat_template  # for those who load the tokenizer alone, and for transformers.js
    return raw


def _json(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
