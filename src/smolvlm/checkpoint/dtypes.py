"""The number formats of safetensors files and the way to and from NumPy float32, which has no bfloat16 of its own."""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from smolvlm.errors import CheckpointError

FloatArray: TypeAlias = npt.NDArray[np.float32]
Bytes: TypeAlias = npt.NDArray[np.uint8]

# Bytes of one element by the format's own code. Codes below one byte (F4, F6) cannot be SmolVLM weights.
ITEM_SIZES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1,
    "F8_E5M2FNUZ": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
    "C64": 8,
}

FLOATS = ("F64", "F32", "F16", "BF16")

# The names that users and `config.json` use -> the codes in safetensors headers. Also the formats that we write.
CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}

# Safetensors is little-endian on every machine. (unsigned type to look at the bits, bits of the exponent)
_BITS: dict[str, tuple[str, int]] = {
    "F64": ("<u8", 0x7FF0000000000000),
    "F32": ("<u4", 0x7F800000),
    "F16": ("<u2", 0x7C00),
    "BF16": ("<u2", 0x7F80),
}


def to_float32(raw: Bytes, dtype: str) -> FloatArray:
    """The little-endian bytes of F64, F32, F16 or BF16 elements as a flat float32 array.

    F32 comes back as a view of `raw` where the bytes are aligned, the others as a copy. Exact, but for F64, which is
    rounded to the nearest. Raises CheckpointError for any other format.
    """
    if dtype == "BF16":  # the upper half of a float32
        return (raw.view("<u2").astype(np.uint32) << np.uint32(16)).view(np.float32)
    if dtype not in FLOATS:
        raise CheckpointError(f"{dtype} is not one of the float formats that are read ({', '.join(FLOATS)}).")
    values = raw.view({"F64": "<f8", "F32": "<f4", "F16": "<f2"}[dtype])
    with np.errstate(over="ignore"):  # an F64 beyond float32 becomes infinite and is found by `find_nonfinite`
        return np.require(values.astype(np.float32, copy=False), requirements="A")


def from_float32(values: FloatArray, dtype: str) -> Bytes:
    """float32 of any shape -> the flat little-endian bytes in F32, F16 or BF16, rounded to the nearest, ties to even.

    Raises CheckpointError when a finite value has no place in the format (beyond 65,504 in F16).
    """
    flat = np.ascontiguousarray(values, dtype=np.float32).reshape(-1)
    if dtype == "F32":
        return flat.astype("<f4", copy=False).view(np.uint8)
    if dtype not in CODES.values():
        raise CheckpointError(f"{dtype} is not one of the formats that are written ({', '.join(CODES)}).")
    if dtype == "F16":
        with np.errstate(over="ignore"):
            half = flat.astype("<f2")
        return _checked(flat, half.view(np.uint8), dtype)
    bits = flat.view(np.uint32)
    odd = (bits >> np.uint32(16)) & np.uint32(1)
    rounded = ((bits + (odd + np.uint32(0x7FFF))) >> np.uint32(16)).astype("<u2")
    if np.isnan(flat).any():  # rounding could carry a NaN's payload into the sign: keep it a quiet NaN instead
        rounded[np.isnan(flat)] = 0x7FC0
    return _checked(flat, rounded.view(np.uint8), dtype)


def count_nonfinite(raw: Bytes, dtype: str, *, chunk_bytes: int = 1 << 24) -> int:
    """How many elements are NaN or infinite, from the exponent's bits, in chunks so that a mapped file stays mapped."""
    kind, exponent = _BITS[dtype]
    mask = np.array(exponent, dtype=kind)
    return sum(
        int(np.count_nonzero((raw[start : start + chunk_bytes].view(kind) & mask) == mask)) for start in range(0, raw.size, chunk_bytes)
    )


def _checked(values: FloatArray, raw: Bytes, dtype: str) -> Bytes:
    lost = count_nonfinite(raw, dtype) - (values.size - int(np.count_nonzero(np.isfinite(values))))
    if lost > 0:
        largest = float(np.abs(values[np.isfinite(values)]).max())
        raise CheckpointError(f"{lost} values (up to {largest:.4g}) are beyond the range of {dtype}; write bfloat16 or float32.")
    return raw
