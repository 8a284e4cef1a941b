"""Checkpoints on disk: the official tensor names, reading by memory map, writing whole or not at all. No torch."""

from smolvlm.checkpoint.header import TensorInfo
from smolvlm.checkpoint.layout import TOLERATED, is_tolerated, tensor_shapes
from smolvlm.checkpoint.random import write_random_checkpoint
from smolvlm.checkpoint.reader import INDEX_FILE, WEIGHTS_FILE, CheckpointReader
from smolvlm.checkpoint.writer import MAX_SHARD_BYTES, AnyTensor, RawTensor, write_checkpoint

__all__ = [
    "INDEX_FILE",
    "MAX_SHARD_BYTES",
    "TOLERATED",
    "WEIGHTS_FILE",
    "AnyTensor",
    "CheckpointReader",
    "RawTensor",
    "TensorInfo",
    "is_tolerated",
    "tensor_shapes",
    "write_checkpoint",
    "write_random_checkpoint",
]
