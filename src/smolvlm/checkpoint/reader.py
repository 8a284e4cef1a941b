"""Reading a checkpoint's weights by memory map: one file or shards, any float format, never pickle."""

from __future__ import annotations

import logging
import mmap
import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np

from smolvlm.checkpoint.dtypes import FLOATS, ITEM_SIZES, Bytes, FloatArray, count_nonfinite, to_float32
from smolvlm.checkpoint.header import TensorInfo, read_header
from smolvlm.checkpoint.layout import is_tolerated, tensor_shapes
from smolvlm.checkpoint.native_file import NATIVE_FILE
from smolvlm.config import ModelConfig
from smolvlm.errors import CheckpointError, ConfigError
from smolvlm.families.tensors import EMBED_TOKENS, LM_HEAD
from smolvlm.json_file import read_json

logger = logging.getLogger(__name__)

WEIGHTS_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
_PIECE = 1 << 20  # values
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
_SHARD_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*\.safetensors")


class CheckpointReader:
    """The tensors of a checkpoint folder, mapped and not copied: `model.safetensors`, or shards with their index.

    Opening reads the headers only. Raises CheckpointError, naming the file and the remedy, for a folder without
    weights, with pickle weights only, with a corrupt, truncated or missing file, or whose index points elsewhere.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.infos: dict[str, TensorInfo] = _find_tensors(self.folder)
        self._maps: dict[Path, mmap.mmap] = {}

    def __enter__(self) -> CheckpointReader:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the maps. Arrays handed out keep theirs alive; reading again maps again."""
        self._maps.clear()

    def raw(self, name: str) -> Bytes:
        """The little-endian bytes of one tensor, a read-only uint8 view (nbytes,) of the map."""
        info = self._info(name)
        if info.nbytes == 0:
            return np.zeros(0, dtype=np.uint8)
        if info.file not in self._maps:
            try:
                with info.file.open("rb") as file:
                    self._maps[info.file] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"{info.file}: cannot be mapped ({error}).") from None
        mapped = self._maps[info.file]
        if info.offset + info.nbytes > len(mapped):
            raise CheckpointError(f"{info.file}: became shorter while it was open; load the checkpoint again.")
        return np.frombuffer(mapped, dtype=np.uint8, count=info.nbytes, offset=info.offset)

    def release(self, name: str) -> None:
        """Take the pages of one tensor out of memory again; reading it later reads the file anew.

        A loader that copies calls it after each tensor: else the whole file stays beside the copy, and counts as ours.
        """
        info = self._info(name)
        mapped = self._maps.get(info.file)
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED") and info.nbytes:
            first = info.offset // mmap.PAGESIZE * mmap.PAGESIZE
            mapped.madvise(mmap.MADV_DONTNEED, first, info.offset + info.nbytes - first)

    def float32(self, name: str) -> FloatArray:
        """One tensor as float32 in its shape; a read-only view of the map where the file is float32, else a copy."""
        info = self._info(name)
        self._require_float([info])
        return to_float32(self.raw(name), info.dtype).reshape(info.shape)

    def verify(self, config: ModelConfig) -> ModelConfig:
        """Check names, shapes and number formats against the configuration; CheckpointError lists what disagrees.

        Returns the configuration that holds for these weights. It is the one given, except where that ties the embeddings
        and the file has an `lm_head.weight` with other values: the file's own head is used then, as `transformers` does,
        and a warning says so. Leftover buffers of old writers (`layout.TOLERATED`) are allowed.
        """
        expected = tensor_shapes(config)
        optional = {LM_HEAD: expected[EMBED_TOKENS]} if config.tie_word_embeddings else {}
        known = optional | expected
        missing = [name for name in expected if name not in self.infos]
        unexpected = [name for name in self.infos if name not in known and not is_tolerated(name)]
        misshapen = [
            f"{name} {_dims(self.infos[name].shape)} instead of {_dims(shape)}"
            for name, shape in known.items()
            if name in self.infos and self.infos[name].shape != shape
        ]
        problems = [_some("missing", missing), _some("unexpected", unexpected), _some("misshapen", misshapen)]
        if any(problems):
            raise CheckpointError(
                f"{self.folder}: the weights do not fit config.json: {'; '.join(filter(None, problems))}; take both from one checkpoint."
            )
        self._require_float(self.infos[name] for name in known if name in self.infos)
        if not config.tie_word_embeddings or LM_HEAD not in self.infos or self._are_equal(LM_HEAD, EMBED_TOKENS):
            return config
        logger.warning(
            "%s: config.json says tie_word_embeddings=true, but %s differs from %s; the weights are not tied. "
            "Set tie_word_embeddings to false in config.json.",
            self.folder,
            LM_HEAD,
            EMBED_TOKENS,
        )
        return replace(config, tie_word_embeddings=False)

    def find_nonfinite(self) -> dict[str, int]:
        """Names of float tensors that hold NaN or infinite values, with how many. Reads every byte of the weights."""
        found = {}
        for name, info in self.infos.items():
            if info.dtype in FLOATS and (count := count_nonfinite(self.raw(name), info.dtype)):
                found[name] = count
        return found

    def _are_equal(self, one: str, other: str) -> bool:
        """Whether two tensors of one shape hold the same values; compared in pieces, up to the first difference."""
        for start in range(0, self.infos[one].size, _PIECE):
            pieces = []
            for name in (one, other):
                item = ITEM_SIZES[self.infos[name].dtype]
                raw = self.raw(name)[start * item : (start + _PIECE) * item]
                pieces.append(to_float32(raw, self.infos[name].dtype))
            if not np.array_equal(pieces[0], pieces[1]):
                return False
        return True

    def _info(self, name: str) -> TensorInfo:
        if name not in self.infos:
            raise CheckpointError(f"{self.folder}: no tensor named {name!r} in the weights.")
        return self.infos[name]

    def _require_float(self, infos: Iterable[TensorInfo]) -> None:
        if wrong := [f"{info.name} ({info.dtype})" for info in infos if info.dtype not in FLOATS]:
            raise CheckpointError(
                f"{self.folder}: {_some('not float', wrong)}; quantized weights are not read here, "
                "use the float32, bfloat16 or float16 checkpoint."
            )


def _find_tensors(folder: Path) -> dict[str, TensorInfo]:
    try:
        if not folder.is_dir():
            what = "is a file; pass the folder that holds it" if folder.exists() else "no such folder"
            raise CheckpointError(f"{folder}: {what}.")
        if (folder / WEIGHTS_FILE).is_file():
            return read_header(folder / WEIGHTS_FILE)
        if (folder / INDEX_FILE).is_file():
            return _read_shards(folder)
        names = sorted(path.name for path in folder.iterdir())
        if NATIVE_FILE in names:
            raise CheckpointError(f"{folder}: is quantized for the native engine, and only that one reads it; use the original checkpoint.")
    except CheckpointError:
        raise
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise CheckpointError(f"{folder}: cannot be read ({error}).") from None
    if pickles := [name for name in names if name.lower().endswith(_PICKLES)]:
        raise CheckpointError(
            f"{folder}: {_some('pickle weights only', pickles)}; pickle files can run code and are "
            f"never read here: use a checkpoint with {WEIGHTS_FILE}."
        )
    raise CheckpointError(f"{folder}: no weights; expected {WEIGHTS_FILE}, or shards with {INDEX_FILE}.")


def _read_shards(folder: Path) -> dict[str, TensorInfo]:
    index_path = folder / INDEX_FILE
    try:
        weight_map = read_json(index_path).get("weight_map")
    except ConfigError as error:
        raise CheckpointError(str(error)) from None
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index_path}: no weight_map; the file is corrupt, download it again.")
    shards: dict[str, dict[str, TensorInfo]] = {}
    for shard in weight_map.values():
        # A plain name only: an index must not make us open files elsewhere. Links are the Hub cache's own way.
        if not isinstance(shard, str) or not _SHARD_NAME.fullmatch(shard):
            raise CheckpointError(
                f"{index_path}: {str(shard)[:120]!r} is not the plain name of a .safetensors file "
                "beside the index; such an index is not followed."
            )
        if shard not in shards:
            if not (folder / shard).is_file():
                raise CheckpointError(f"{folder / shard}: no such file, though {INDEX_FILE} names it; download the missing shard.")
            shards[shard] = read_header(folder / shard)
    for name, shard in weight_map.items():
        if name not in shards[shard]:
            raise CheckpointError(f"{folder / shard}: lacks {str(name)[:120]}, though {INDEX_FILE} puts it there; download both again.")
    infos = {name: shards[shard][name] for name, shard in weight_map.items()}
    for shard_infos in shards.values():  # tensors that the index forgot still count, so that `verify` can name them
        for name, info in shard_infos.items():
            infos.setdefault(name, info)
    return infos


def _some(what: str, names: list[str], show: int = 3) -> str:
    """'2 missing: a, b'; of long lists the first few."""
    if not names:
        return ""
    more = f" and {len(names) - show} more" if len(names) > show else ""
    return f"{len(names)} {what}: {', '.join(name[:120] for name in names[:show])}{more}"


def _dims(shape: tuple[int, ...]) -> str:
    return "(" + ", ".join(str(n) for n in shape) + ")"
