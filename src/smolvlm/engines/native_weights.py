"""Which official tensors make up each part of the native engine, and the way of one checkpoint into it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from smolvlm.checkpoint.adapter import Adapter
from smolvlm.checkpoint.dtypes import Bytes
from smolvlm.checkpoint.layout import tensor_shapes, tensor_sizes
from smolvlm.checkpoint.native_file import NativeFile
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import ModelConfig
from smolvlm.engines.base import FloatArray
from smolvlm.errors import CheckpointError
from smolvlm.families.tensors import EMBED_TOKENS, LM_HEAD, Tensor, tensors
from smolvlm.json_file import short

if TYPE_CHECKING:
    from smolvlm.engines import _native

_NOTHING: Bytes = np.empty(0, np.uint8)


@dataclass(frozen=True)
class Part:
    """One part of the engine and the official tensors that it is made of, one below the other."""

    name: str
    kind: str  # "matrix", "vector" or "embedding"
    tensors: tuple[str, ...]


def parts(config: ModelConfig) -> Iterator[Part]:
    """All parts of a model, in the order of the families' table; the tensors of each in the order they are stacked in."""
    grouped: dict[str, list[Tensor]] = {}
    for tensor in tensors(tensor_sizes(config)):
        grouped.setdefault(tensor.part, []).append(tensor)
    for name, members in grouped.items():
        names = tuple(tensor.name for tensor in sorted(members, key=lambda tensor: tensor.place))
        tied = names == (LM_HEAD,) and config.tie_word_embeddings
        yield Part(name, members[0].kind, (EMBED_TOKENS,) if tied else names)


def load_weights(
    engine: _native.Engine,
    reader: CheckpointReader,
    config: ModelConfig,
    adapter: Adapter | None,
    on_tensor: Callable[[int, int], None] | None = None,
) -> ModelConfig:
    """Read, merge, quantize: a part at a time, so that the peak is the engine's own copy.

    Returns the configuration that holds for the weights (`CheckpointReader.verify`). Raises CheckpointError for tensors
    that do not fit it or hold values that are not finite.
    """
    config = reader.verify(config)
    if adapter is not None:
        adapter.check(reader, config)
    todo = list(parts(config))
    for done, part in enumerate(todo, start=1):
        try:
            if part.kind == "vector":
                values = np.concatenate([_float32(reader, adapter, name).reshape(-1) for name in part.tensors])
                engine.set_vector(part.name, np.ascontiguousarray(values))
            else:
                raws = [_raw(reader, adapter, name) for name in part.tensors]
                shapes = [reader.infos[name].shape for name in part.tensors]
                rows = [shape[0] for shape in shapes]
                columns = [int(np.prod(shape[1:])) for shape in shapes]
                if part.kind == "embedding" and raws[0][1] == "BF16" and raws[0][0].ctypes.data % 2 == 0:
                    engine.attach_embedding(raws[0][0])  # where the file is mapped: a prompt uses a few rows
                elif part.kind == "embedding":
                    engine.set_embedding(raws[0][0], raws[0][1], rows[0], columns[0])
                else:
                    engine.set_matrix(part.name, [raw for raw, _ in raws], [code for _, code in raws], rows, columns)
        except ValueError as error:
            raise CheckpointError(
                f"{reader.folder}: {', '.join(part.tensors)}: {str(error).partition(': ')[2]}; download the weights again."
            ) from None
        for name in part.tensors:
            reader.release(name)
        if on_tensor is not None:
            on_tensor(done, len(todo))
    engine.finish()
    return config


def attach_weights(
    engine: _native.Engine, packed: NativeFile, config: ModelConfig, on_tensor: Callable[[int, int], None] | None = None
) -> None:
    """Use the parts of a quantized checkpoint where the file is mapped; only vectors, a few MB, are copied.

    Raises CheckpointError for parts that are missing, left over, of another size or not finite.
    """
    todo, shapes = list(parts(config)), tensor_shapes(config)
    for done, part in enumerate(todo, start=1):
        try:
            if part.kind == "matrix":
                scales = packed.bytes_of(f"{part.name}.scales", "U8") if f"{part.name}.scales" in packed.infos else _NOTHING
                engine.attach_matrix(part.name, packed.bytes_of(f"{part.name}.data", "U8"), scales)
            elif part.kind == "vector":
                values = packed.bytes_of(part.name, "F32").view(np.float32)
                engine.set_vector(part.name, values[: sum(math.prod(shapes[name]) for name in part.tensors)])
            else:
                engine.attach_embedding(packed.bytes_of(part.name, "BF16"))
                packed.release(part.name)  # a prompt uses a few rows; checking it read them all
        except ValueError as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"{packed.path}: {part.name} {str(error).partition(': ')[2]}; quantize the original checkpoint again."
            ) from None
        if on_tensor is not None:
            on_tensor(done, len(todo))
    known = {f"{part.name}{end}" for part in todo for end in ("", ".data", ".scales")}
    if unknown := [name for name in packed.infos if name not in known]:
        raise CheckpointError(
            f"{packed.path}: {short(unknown[0])} is no part of this model; take config.json and the weights from one checkpoint."
        )
    engine.finish()


def _float32(reader: CheckpointReader, adapter: Adapter | None, name: str) -> FloatArray:
    value = reader.float32(name)
    return adapter.merged(name, value) if adapter is not None and name in adapter else value


def _raw(reader: CheckpointReader, adapter: Adapter | None, name: str) -> tuple[Bytes, str]:
    """The bytes of a tensor and the code of their number format."""
    if adapter is not None and name in adapter:
        return np.ascontiguousarray(_float32(reader, adapter, name)).reshape(-1).view(np.uint8), "F32"
    return reader.raw(name), reader.infos[name].dtype
