"""A short name for a checkpoint's weights, so that an adapter can tell the model it was trained on from any other."""

from __future__ import annotations

import hashlib

import numpy as np

from smolvlm.checkpoint.dtypes import ITEM_SIZES, from_float32, to_float32
from smolvlm.checkpoint.layout import tensor_shapes
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import ModelConfig

# 4 pieces of 256 elements of each tensor: a gigabyte of weights costs milliseconds, and training moves nearly all of them.
_PIECES, _PIECE = 4, 256


def fingerprint(reader: CheckpointReader, config: ModelConfig) -> str:
    """32 hexadecimal digits that depend on every tensor's name, shape and sampled values, rounded to bfloat16.

    A float32 checkpoint and its bfloat16 copy have the same one. Raises CheckpointError where tensors of `config` are
    missing: pass what `reader.verify` returned.
    """
    digest = hashlib.blake2b(digest_size=16)
    for name, shape in sorted(tensor_shapes(config).items()):
        digest.update(f"{name} {shape}\n".encode())
        raw, dtype = reader.raw(name), reader.infos[name].dtype
        item = ITEM_SIZES[dtype]
        count = raw.size // item
        for start in sorted({max(0, count - _PIECE) * i // (_PIECES - 1) for i in range(_PIECES)}):
            values = to_float32(raw[start * item : (start + _PIECE) * item], dtype)
            # Values beyond bfloat16's range are no weights; they are clipped so that they cannot end in an error here.
            digest.update(from_float32(np.clip(values, -3e38, 3e38), "BF16").tobytes())
    return digest.hexdigest()
