"""A picture or video as the vision encoder left it: kept, stored and asked about later, without opening the medium again."""

from __future__ import annotations

import dataclasses
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from smolvlm.atomic_file import replacing
from smolvlm.checkpoint.dtypes import CODES, FloatArray, from_float32, to_float32
from smolvlm.checkpoint.header import build_header, read_stream
from smolvlm.errors import CheckpointError, ParamsError, SourceError
from smolvlm.json_file import parse_json, short
from smolvlm.processor import MediaInfo

Store = Literal["float32", "bfloat16", "int8"]
STORES: tuple[str, ...] = ("float32", "bfloat16", "int8")
_FORMAT, _VERSION = "smolvlm-encoded", "1"
_MOST_BYTES = 1 << 30  # a video of 64 frames in the largest size is 42 MB
_MOST_TILES = 100_000
_MOST_SECONDS = 1e9


@dataclass(frozen=True, eq=False)
class Encoded:
    """Made by `SmolVLM.encode`; every verb takes it in place of the medium. In a file it is one safetensors file.

    info: what the prompt says of the medium: tiles, times, length, warnings.
    keys: one content hash for each tile.
    store: "float32" loses nothing; "bfloat16" is half as large; "int8" is a quarter, with one scale a row.
    features: float32 (tiles, image_seq_len, hidden), as they come out of the store again.
    model, fingerprint: the model's name, and its weights, as `checkpoint.fingerprint` names them.
    error: root mean square of what storing changed, relative to that of the features.
    """

    info: MediaInfo
    keys: tuple[str, ...]
    store: Store
    features: FloatArray
    model: str
    fingerprint: str
    error: float

    @property
    def label(self) -> str:
        """The medium's name, as warnings say it."""
        return self.info.label

    @property
    def pooled(self) -> FloatArray:
        """(hidden,): the mean row, for comparing pictures with pictures."""
        mean: FloatArray = self.features.reshape(-1, self.features.shape[-1]).mean(0)
        return mean

    def retimed(self, timestamps_s: Sequence[float], duration_s: float) -> Encoded:
        """The same frames at other times, which is what the prompt says of them: a window of a video as a clip of its own.

        Raises ParamsError for a picture, or unless there is one time a frame.
        """
        times = tuple(float(time_s) for time_s in timestamps_s)
        if self.info.kind != "video" or len(times) != self.info.tile_count:
            raise ParamsError(f"retimed takes one time for each of the {self.info.tile_count} frames of a video, not {len(times)}.")
        if not all(0 <= time_s <= _MOST_SECONDS for time_s in (*times, duration_s)):
            raise ParamsError("retimed takes times of at least 0 seconds.")
        return dataclasses.replace(self, info=dataclasses.replace(self.info, timestamps_s=times, duration_s=float(duration_s)))

    @classmethod
    def of(cls, info: MediaInfo, keys: tuple[str, ...], features: FloatArray, store: Store, model: str, fingerprint: str) -> Encoded:
        """The features as they will come out of `store`."""
        kept = features if store == "float32" else _unpacked(_packed(features, store), features.shape)
        power = float(np.square(features, dtype=np.float64).mean())
        change = float(np.square(np.subtract(kept, features, dtype=np.float64)).mean())
        return cls(info, keys, store, kept, model, fingerprint, (change / power) ** 0.5 if power else 0.0)

    def to_bytes(self) -> bytes:
        """The safetensors file: a tensor `features` (tiles, image_seq_len, hidden), for int8 also `scales`, and metadata."""
        out = io.BytesIO()
        self._write(out)
        return out.getvalue()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the file; it appears whole or not at all. Raises SourceError."""
        target = _path(path)
        with replacing(target) as file:
            self._write(file)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Encoded:
        """Read a file that `save` wrote. Raises SourceError or CheckpointError for any other."""
        source = _path(path)
        try:
            with source.open("rb") as file:
                return cls._read(file, str(path))
        except (OSError, ValueError) as error:
            raise SourceError(f"{str(source)!r}: cannot be read ({getattr(error, 'strerror', None) or error}).") from None

    @classmethod
    def from_bytes(cls, data: bytes) -> Encoded:
        """Read what `to_bytes` gave. Raises SourceError or CheckpointError for anything else."""
        if not isinstance(data, bytes | bytearray | memoryview):
            raise SourceError(f"stored features are bytes, not a {type(data).__name__}; read a file with Encoded.load.")
        return cls._read(io.BytesIO(data), f"<{len(data)} bytes>")

    def _write(self, out: BinaryIO) -> None:
        packed = _packed(self.features, self.store)
        shapes = {name: (code, shape) for name, (code, shape, _) in packed.items()}
        info = {field.name: getattr(self.info, field.name) for field in dataclasses.fields(self.info)}
        metadata = {
            "format": _FORMAT,
            "version": _VERSION,
            "store": self.store,
            "model": self.model,
            "fingerprint": self.fingerprint,
            "error": repr(self.error),
            "info": json.dumps(info),  # ASCII: the name of a file may be no UTF-8
            "keys": json.dumps(self.keys),
        }
        header, _ = build_header(shapes, metadata=metadata)
        out.write(header)
        for _, _, data in packed.values():
            out.write(data.data)

    @classmethod
    def _read(cls, file: BinaryIO, label: str) -> Encoded:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if size > _MOST_BYTES:
            raise SourceError(f"{label}: {size:,} bytes are more than stored features have.")
        infos, metadata = read_stream(file, Path(label), size)
        if metadata.get("format") != _FORMAT or metadata.get("version") != _VERSION:
            raise SourceError(f"{label}: these are no stored features of version {_VERSION}; encode the medium again.")
        packed: Packed = {}
        for info in sorted(infos.values(), key=lambda info: info.offset):
            file.seek(info.offset)
            packed[info.name] = (info.dtype, info.shape, np.frombuffer(file.read(info.nbytes), np.uint8))
        try:
            store = _store(metadata["store"])
            shape = packed["features"][1]
            if {name: kind for name, (kind, _, _) in packed.items()} != _TENSORS[store] or len(shape) != 3 or 0 in shape:
                raise ValueError("its tensors are not those of the store")
            media, keys = _media_info(parse_json(metadata["info"])), parse_json(metadata["keys"])
            if not isinstance(keys, list) or len(keys) != shape[0] or media.tile_count != shape[0]:
                raise ValueError("tiles are missing")
            features, error = _unpacked(packed, shape), float(metadata["error"])
            if not np.isfinite(features).all() or not 0 <= error < np.inf:
                raise ValueError("values are not finite")
            return cls(media, tuple(str(key)[:64] for key in keys), store, features, metadata["model"], metadata["fingerprint"], error)
        except (KeyError, ValueError, TypeError, OverflowError, RecursionError, CheckpointError, ParamsError) as error:
            raise SourceError(f"{label}: the stored features are damaged ({short(str(error))}); encode the medium again.") from None


# name -> (safetensors' code, shape, bytes)
Packed = dict[str, tuple[str, tuple[int, ...], npt.NDArray[np.uint8]]]
_TENSORS = {"float32": {"features": "F32"}, "bfloat16": {"features": "BF16"}, "int8": {"features": "I8", "scales": "F32"}}


def _path(path: object) -> Path:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise SourceError(
            "an empty path names no file."
            if path == ""
            else f"a file of stored features is named by its path, not by a {type(path).__name__}."
        )
    return Path(path)


def check_store(store: object) -> Store:
    """Raises ParamsError for a store that does not exist."""
    try:
        return _store(store)
    except ValueError as error:
        raise ParamsError(f"{error}.") from None


def _store(store: object) -> Store:
    if store not in STORES:
        raise ValueError(f"store={short(store)!r}: expected one of {', '.join(STORES)}")
    return store  # type: ignore[return-value]


def _packed(features: FloatArray, store: Store) -> Packed:
    if store != "int8":
        code = CODES[store]
        return {"features": (code, features.shape, from_float32(features, code))}
    largest = np.abs(features).max(-1, keepdims=True)
    scales = np.where(largest > 0, largest / np.float32(127), np.float32(1)).astype("<f4")
    values = np.clip(np.rint(features / scales), -127, 127).astype(np.int8)
    return {
        "features": ("I8", features.shape, values.reshape(-1).view(np.uint8)),
        "scales": ("F32", scales.shape[:-1], scales.reshape(-1).view(np.uint8)),
    }


def _unpacked(packed: Packed, shape: tuple[int, ...]) -> FloatArray:
    code, _, data = packed["features"]
    if code != "I8":
        return to_float32(data, code).reshape(shape)
    scales = to_float32(packed["scales"][2], "F32")
    if scales.size * shape[-1] != data.size:
        raise ValueError("scales are missing")
    rows: FloatArray = data.view(np.int8).reshape(-1, shape[-1]).astype(np.float32) * scales[:, None]
    return rows.reshape(shape)


def _media_info(raw: Any) -> MediaInfo:
    """What `_write` wrote. Raises ValueError or TypeError: the prompt is worded by these numbers."""
    info = MediaInfo(
        **{**raw, "timestamps_s": tuple(map(float, raw["timestamps_s"])), "warnings": tuple(short(w) for w in raw["warnings"])}
    )
    counts = (info.tile_count, info.rows, info.cols, info.decoded_frames)
    if info.kind not in ("image", "video") or not all(type(n) is int and n >= 0 for n in counts) or not 0 < info.tile_count <= _MOST_TILES:
        raise ValueError("its description is malformed")
    tiles = len(info.timestamps_s) if info.kind == "video" else info.rows * info.cols + 1
    if tiles != info.tile_count or bool(info.rows) != bool(info.cols):
        raise ValueError("tiles are missing")
    if type(info.label) is not str or info.looks_drawn not in (None, True, False):
        raise ValueError("its description is malformed")
    times = [info.duration_s, *info.timestamps_s] if info.kind == "video" else []
    if not all(type(t) is float and 0 <= t <= _MOST_SECONDS for t in times) or (not times and (info.duration_s or info.timestamps_s)):
        raise ValueError("its times are malformed")
    label = "".join(c if c.isprintable() else " " for c in info.label)[:200]  # it is printed in warnings and errors
    return dataclasses.replace(info, label=label)
