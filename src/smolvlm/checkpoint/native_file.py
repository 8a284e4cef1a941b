"""The weights file of a checkpoint that `smolvlm quantize` made: the native engine's own parts, packed, used where they lie.

A safetensors file with metadata: `format`, `version`, how each tower is kept, and the fingerprint of the source. Every
tensor begins at a multiple of 64 bytes. A matrix is `<part>.data` (U8) and, quantized, `<part>.scales` (U8, the bytes of
float16); a vector is `<part>` (F32, zeros up to a multiple of 32 values); `embedding` is BF16, (vocab, hidden).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from smolvlm.checkpoint.dtypes import ITEM_SIZES, Bytes
from smolvlm.checkpoint.folder import sync
from smolvlm.checkpoint.header import TensorInfo, build_header, read_metadata
from smolvlm.errors import CheckpointError
from smolvlm.json_file import short

NATIVE_FILE = "native.safetensors"
FORMAT, VERSION = "smolvlm-native", "1"
ALIGNMENT = 64  # a cache line
_FORMATS = ("bf16", "q8", "q4")


@dataclass(frozen=True)
class NativeHeader:
    """What the file says of itself: how the encoder, the decoder and its output layer are kept, and of which weights."""

    vision: str
    text: str
    head: str
    fingerprint: str


def has_native_file(folder: Path) -> bool:
    """Whether `smolvlm quantize` made this folder."""
    return (folder / NATIVE_FILE).is_file()


class NativeFile:
    """The packed weights of a folder, mapped: pages are read when they are used, and shared by all processes that map them.

    Raises CheckpointError, naming the file and the remedy, for a file that is not whole, or of another version.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / NATIVE_FILE
        infos, metadata = read_metadata(self.path)
        self.infos: dict[str, TensorInfo] = infos
        self.header = _checked(self.path, metadata)
        if unaligned := [info.name for info in infos.values() if info.offset % ALIGNMENT]:
            raise CheckpointError(
                f"{self.path}: {short(unaligned[0])} does not begin at a multiple of {ALIGNMENT} bytes; "
                "quantize the original checkpoint again."
            )
        try:
            with self.path.open("rb") as file:
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"{self.path}: cannot be mapped ({error}).") from None

    def bytes_of(self, name: str, dtype: str) -> Bytes:
        """The bytes of one tensor, a read-only view (nbytes,) of the map. CheckpointError where it is missing."""
        info = self.infos.get(name)
        if info is None or info.dtype != dtype:
            found = "is missing" if info is None else f"is {info.dtype}, not {dtype}"
            raise CheckpointError(f"{self.path}: {name} {found}; quantize the original checkpoint again.")
        if info.offset + info.nbytes > len(self._map):
            raise CheckpointError(f"{self.path}: became shorter while it was opened; load the checkpoint again.")
        return np.frombuffer(self._map, dtype=np.uint8, count=info.nbytes, offset=info.offset)

    def release(self, name: str) -> None:
        """Let go of the pages of one tensor; using it reads them again. For parts of which little is ever used."""
        info = self.infos[name]
        if hasattr(mmap, "MADV_DONTNEED"):
            first = info.offset // mmap.PAGESIZE * mmap.PAGESIZE
            self._map.madvise(mmap.MADV_DONTNEED, first, info.offset + info.nbytes - first)


def write_native_file(
    folder: Path, header: NativeHeader, tensors: Mapping[str, tuple[str, tuple[int, ...]]], contents: Iterable[tuple[str, Bytes]]
) -> None:
    """Write the file: (dtype, shape) by name, and the bytes of each in the same order."""
    last = list(tensors)[-1]
    for name, (dtype, shape) in tensors.items():
        nbytes = math.prod(shape) * ITEM_SIZES[dtype]
        assert name == last or nbytes % ALIGNMENT == 0, f"{name}: what follows its {nbytes} bytes would be unaligned"
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "vision": header.vision,
        "text": header.text,
        "head": header.head,
        "fingerprint": header.fingerprint,
    }
    text, offsets = build_header(tensors, metadata=metadata, alignment=ALIGNMENT)
    with (folder / NATIVE_FILE).open("wb", buffering=1 << 20) as file:
        file.write(text)
        _write_all(file, offsets, contents)
        sync(file)


def _write_all(file: BinaryIO, offsets: Mapping[str, int], contents: Iterable[tuple[str, Bytes]]) -> None:
    for name, data in contents:
        assert file.tell() == offsets[name], f"{name} comes out of its turn"
        file.write(data.data)


def _checked(path: Path, metadata: Mapping[str, str]) -> NativeHeader:
    if metadata.get("format") != FORMAT:
        raise CheckpointError(
            f"{path}: was not written by `smolvlm quantize` (its format is "
            f"{short(str(metadata.get('format')))}); quantize the original checkpoint."
        )
    if metadata.get("version") != VERSION:
        raise CheckpointError(
            f"{path}: has version {short(str(metadata.get('version')))} of the quantized format, and "
            f"this smolvlm reads {VERSION}; quantize the original checkpoint again."
        )
    for part in ("vision", "text", "head"):
        if metadata.get(part) not in _FORMATS:
            raise CheckpointError(
                f"{path}: {part}={short(str(metadata.get(part)))} is not one of {', '.join(_FORMATS)}; "
                "quantize the original checkpoint again."
            )
    return NativeHeader(metadata["vision"], metadata["text"], metadata["head"], metadata.get("fingerprint", "")[:64])
