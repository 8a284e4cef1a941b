"""The header of a safetensors file: read with suspicion, written as the reference writer does.

Format: 8 bytes little-endian length, that many bytes of JSON `{name: {dtype, shape, data_offsets}}`, then the data,
which the tensors cover without holes, overlaps or rest. (github.com/huggingface/safetensors, README "Format")
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from smolvlm.checkpoint.dtypes import ITEM_SIZES
from smolvlm.errors import CheckpointError
from smolvlm.json_file import parse_json, short

# The 2.2B model's header is under 100 kB; the format itself allows 100 MB, which as JSON could fill a small machine.
MAX_HEADER_BYTES = 16 << 20
_AGAIN = "the file is corrupt, download or save it again"


@dataclass(frozen=True)
class TensorInfo:
    """Where one tensor lies. `dtype` is the format's code ("F32"), `offset` counts bytes from the file's start."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: Path
    offset: int
    nbytes: int

    @property
    def size(self) -> int:
        """The number of elements."""
        return math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorInfo]:
    """All tensors of one safetensors file, in the order of their bytes. Reads nothing but the header.

    Raises CheckpointError, naming the file, for anything but a whole and consistent file.
    """
    return read_metadata(path)[0]


def read_metadata(path: Path) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """`read_header`, and the texts that the writer put beside the tensors."""
    try:
        with path.open("rb") as file:
            return read_stream(file, path, os.fstat(file.fileno()).st_size)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror or error}).") from None


def read_stream(file: BinaryIO, path: Path, file_bytes: int) -> tuple[dict[str, TensorInfo], dict[str, str]]:
    """`read_metadata` of an open file; `path` is its name in messages."""
    length = int.from_bytes(file.read(8), "little")
    if file_bytes < 8 or length < 2 or length > MAX_HEADER_BYTES:
        raise CheckpointError(f"{path}: not a safetensors file ({file_bytes:,} bytes, header length {length:,}); {_AGAIN}.")
    text = file.read(length)
    data_start = 8 + length
    if len(text) < length:
        raise CheckpointError(f"{path}: truncated inside its header ({file_bytes:,} bytes); download it again.")
    infos, metadata = _parse(path, text, data_start)
    _check_cover(path, infos, data_start, file_bytes)
    return {info.name: info for info in infos}, metadata


def build_header(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], *, metadata: Mapping[str, str] | None = None, alignment: int = 8
) -> tuple[bytes, dict[str, int]]:
    """(dtype code, shape) by name, in the order of the bytes -> the header, and each tensor's offset in the file.

    The first tensor begins at a multiple of `alignment`, which is a multiple of 8.
    """
    entries: dict[str, Any] = {"__metadata__": metadata or {"format": "pt"}}  # older readers refuse a file without it
    starts: dict[str, int] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        starts[name] = end
        end += math.prod(shape) * ITEM_SIZES[dtype]
        entries[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [starts[name], end]}
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-(8 + len(text)) % alignment)
    header = len(text).to_bytes(8, "little") + text
    return header, {name: start + len(header) for name, start in starts.items()}


def _parse(path: Path, text: bytes, data_start: int) -> tuple[list[TensorInfo], dict[str, str]]:
    try:
        raw = parse_json(text.decode("utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: the header is not JSON ({short(str(error))}); {_AGAIN}.") from None
    if not isinstance(raw, dict):
        raise CheckpointError(f"{path}: the header is not a JSON object; {_AGAIN}.")
    beside = raw.pop("__metadata__", None)  # what is no text in it is left out: nobody has needed it
    metadata = {k: v for k, v in beside.items() if isinstance(v, str)} if isinstance(beside, dict) else {}
    infos = [_entry(path, name, entry, data_start) for name, entry in raw.items()]
    return sorted(infos, key=lambda info: (info.offset, info.nbytes)), metadata


def _entry(path: Path, name: str, entry: Any, data_start: int) -> TensorInfo:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise CheckpointError(f"{path}: the header's entry for {short(name)} is malformed; {_AGAIN}.")
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_SIZES:
        raise CheckpointError(
            f"{path}: {short(name)} has dtype {short(dtype)}, which is not read; use a float32, bfloat16 or float16 checkpoint."
        )
    if not _naturals(shape) or not _naturals(offsets) or len(offsets) != 2:
        raise CheckpointError(f"{path}: {short(name)} has a malformed shape or place in the file; {_AGAIN}.")
    nbytes = math.prod(shape) * ITEM_SIZES[dtype]
    if offsets[1] - offsets[0] != nbytes:
        raise CheckpointError(
            f"{path}: {short(name)} of shape {short(shape)} needs {short(nbytes)} bytes, but the "
            f"header gives it {short(offsets[1] - offsets[0])}; {_AGAIN}."
        )
    return TensorInfo(name, dtype, tuple(shape), path, data_start + offsets[0], nbytes)


def _check_cover(path: Path, infos: list[TensorInfo], data_start: int, file_bytes: int) -> None:
    end = data_start
    for info in infos:
        if info.offset != end:
            kind = "overlaps another tensor" if info.offset < end else "leaves a hole before it"
            raise CheckpointError(f"{path}: {short(info.name)} {kind} in the file; {_AGAIN}.")
        end += info.nbytes
    if end > file_bytes:
        raise CheckpointError(
            f"{path}: truncated: the header promises {short(end)} bytes and the file has {file_bytes:,}; download it again."
        )
    if end < file_bytes:
        raise CheckpointError(f"{path}: {file_bytes - end:,} bytes follow the last tensor; {_AGAIN}.")


def _naturals(values: Any) -> bool:
    """A short list of whole numbers that fit 63 bits: what any real shape or offset is."""
    return isinstance(values, list) and len(values) <= 8 and all(type(v) is int and 0 <= v < 1 << 63 for v in values)
