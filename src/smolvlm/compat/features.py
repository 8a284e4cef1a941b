"""What a processor returns: arrays or tensors by name, with attribute access and `.to(...)`, padded in one place."""

from __future__ import annotations

from collections import UserDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.compat.arguments import device_and_dtype, require_torch
from smolvlm.config import ProcessorConfig
from smolvlm.errors import ParamsError
from smolvlm.media.pixels import normalize
from smolvlm.options.declare import check, option

IdRows: TypeAlias = list[list[int]]


class BatchFeature(UserDict[str, Any]):
    """`input_ids`, `attention_mask`, `pixel_values`, `pixel_attention_mask`: `model.generate(**batch)` takes it all."""

    def __getattr__(self, name: str) -> Any:
        if name != "data" and name in self.data:  # `data` itself is missing while an instance is being copied
            return self.data[name]
        raise AttributeError(f"{type(self).__name__} has no {name!r}")

    def to(self, *args: Any, **kwargs: Any) -> BatchFeature:
        """Move all tensors to a device and cast the floating ones to a dtype, in place; returns itself.

        What is not a tensor stays as it is. Raises EngineError for a device that this machine lacks.
        """
        non_blocking = bool(kwargs.get("non_blocking", False))
        device, dtype = device_and_dtype(args, kwargs, "BatchFeature")
        import torch

        for name, value in self.data.items():
            if isinstance(value, torch.Tensor):
                cast = dtype if value.is_floating_point() else None
                self.data[name] = value.to(device=device, dtype=cast, non_blocking=non_blocking)
        return self


@dataclass(frozen=True)
class Padding:
    """How rows of ids are brought to one length. `to` is "longest", "max_length" or None for not at all."""

    to: str | None = None
    max_length: int | None = option(None, "Tokens of every row.", least=1)
    multiple_of: int | None = option(None, "Rows are as long as a multiple of it.", least=1)
    side: str | None = None  # None: the tokenizer's

    def __post_init__(self) -> None:
        if self.to not in (None, "longest", "max_length"):
            raise ParamsError(f"padding={self.to!r}: expected True, False, 'longest' or 'max_length'.")
        if self.to == "max_length" and self.max_length is None:
            raise ParamsError("padding='max_length' needs max_length=...; or pass padding=True for the longest prompt.")
        check(self)
        if self.side not in (None, "left", "right"):
            raise ParamsError(f"padding_side={self.side!r}: expected 'left' or 'right'.")

    def apply(self, rows: Sequence[Sequence[int]], pad_token_id: int, side: str) -> tuple[IdRows, IdRows]:
        """(input_ids, attention_mask), one list a row; the mask is 0 on padding."""
        width = 0
        if self.to is not None:
            width = max(map(len, rows), default=0)
            if self.to == "max_length":
                assert self.max_length is not None, "checked on construction"
                width = max(width, self.max_length)  # prompts are never cut
            if self.multiple_of:
                width = -(-width // self.multiple_of) * self.multiple_of
        left = (self.side or side) == "left"
        ids, mask = [], []
        for row in rows:
            pad = [pad_token_id] * max(0, width - len(row))
            ones, zeros = [1] * len(row), [0] * len(pad)
            ids.append(pad + list(row) if left else list(row) + pad)
            mask.append(zeros + ones if left else ones + zeros)
        return ids, mask


def stack_tiles(groups: Sequence[npt.NDArray[np.uint8]], config: ProcessorConfig) -> dict[str, npt.NDArray[Any]]:
    """`pixel_values` float32 (groups, most tiles, 3, side, side) and `pixel_attention_mask` int64 without the 3.

    `groups` holds uint8 (tiles, side, side, 3) each; the missing tiles of smaller groups are zero in both.
    """
    side, most = config.tile_size, max(map(len, groups))
    pixel_values = np.zeros((len(groups), most, 3, side, side), np.float32)
    mask = np.zeros((len(groups), most, side, side), np.int64)
    for i, tiles in enumerate(groups):
        pixel_values[i, : len(tiles)] = normalize(tiles, config)
        mask[i, : len(tiles)] = 1
    return {"pixel_values": pixel_values, "pixel_attention_mask": mask}


def check_return_tensors(return_tensors: Any) -> str | None:
    """None (lists of ids), "np" or "pt". Raises ParamsError, or MissingExtraError for "pt" without torch."""
    if return_tensors not in (None, "np", "pt"):
        raise ParamsError(f"return_tensors={return_tensors!r}: expected 'pt', 'np' or None.")
    if return_tensors == "pt":
        require_torch("return_tensors='pt'")
    return None if return_tensors is None else str(return_tensors)


def as_features(lists: dict[str, IdRows], arrays: dict[str, npt.NDArray[Any]], return_tensors: str | None) -> BatchFeature:
    """Both together in the asked form. Without `return_tensors` ids are lists and pixels NumPy arrays.

    Raises ParamsError for rows of unequal length where one tensor is asked for.
    """
    if return_tensors is None:
        return BatchFeature({**lists, **arrays})
    for name, rows in lists.items():
        if len({len(row) for row in rows}) > 1:
            raise ParamsError(
                f"{name}: the prompts have {', '.join(str(len(row)) for row in rows[:8])} tokens and do "
                "not fit in one tensor; pass padding=True."
            )
    made = {name: np.asarray(rows, np.int64) for name, rows in lists.items()} | arrays
    if return_tensors == "np":
        return BatchFeature(made)
    import torch

    return BatchFeature({name: torch.from_numpy(array) for name, array in made.items()})
