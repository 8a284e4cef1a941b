"""The number formats against torch, which has a bfloat16 of its own: every one of the 65,536 half-width patterns."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from smolvlm.checkpoint.dtypes import count_nonfinite, from_float32, to_float32
from smolvlm.errors import CheckpointError

TORCH = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def raw_of(tensor: torch.Tensor) -> np.ndarray:
    return tensor.contiguous().view(torch.uint8).numpy().copy()


@pytest.mark.parametrize("dtype", ["F16", "BF16"])
def test_every_pattern_reads_as_torch_reads_it(dtype: str) -> None:
    raw = np.arange(65_536, dtype="<u2").view(np.uint8)
    expected = torch.from_numpy(raw.copy()).view(TORCH[dtype]).float().numpy()
    np.testing.assert_array_equal(to_float32(raw, dtype), expected)  # NaN equal to NaN, -0 checked below
    np.testing.assert_array_equal(np.signbit(to_float32(raw, dtype)), np.signbit(expected))


def test_float64_is_rounded_and_float32_is_a_view() -> None:
    values = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(to_float32(raw_of(values), "F64"), values.float().numpy())
    raw = raw_of(values.float())
    assert np.shares_memory(to_float32(raw, "F32"), raw)
    unaligned = np.concatenate([np.zeros(1, np.uint8), raw])[1:]
    result = to_float32(unaligned, "F32")
    assert result.flags.aligned
    np.testing.assert_array_equal(result, values.float().numpy())


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_writing_rounds_as_torch_rounds(dtype: str) -> None:
    generator = torch.Generator().manual_seed(1)
    random = torch.randn(200_000, generator=generator) * torch.logspace(-9, 4, 200_000)
    # Exact halves between two bfloat16 neighbours, where ties go to even, and the edges of each format.
    halves = torch.arange(0x3F80_0000, 0x3F82_0000, 0x4000, dtype=torch.int32).view(torch.float32)
    edges = torch.tensor([0.0, -0.0, 65504.0, -65504.0, 6e-8, 5.9e-8, 1e-30, 65519.9, torch.inf, -torch.inf, torch.nan])
    values = torch.cat([random.clamp(-65504, 65504), halves, edges])
    written = from_float32(values.numpy(), dtype)
    expected = values.to(TORCH[dtype])
    np.testing.assert_array_equal(to_float32(written, dtype), expected.float().numpy())
    finite = ~values.isnan().numpy()  # a NaN's own bits are free
    np.testing.assert_array_equal(written.reshape(values.numel(), -1)[finite], raw_of(expected).reshape(values.numel(), -1)[finite])


def test_nan_stays_nan_whatever_its_payload() -> None:
    payloads = np.array([0x7F80_0001, 0x7FFF_FFFF, 0xFFFF_FFFF, 0xFF80_0001], dtype=np.uint32).view(np.float32)
    for dtype in ("F16", "BF16"):
        assert np.isnan(to_float32(from_float32(payloads, dtype), dtype)).all()


@pytest.mark.parametrize(("value", "dtype"), [(65520.0, "F16"), (-1e6, "F16"), (3.4e38, "BF16")])
def test_a_value_beyond_the_range_is_refused(value: float, dtype: str) -> None:
    with pytest.raises(CheckpointError, match=f"1 values .* beyond the range of {dtype}"):
        from_float32(np.array([1.0, value, np.inf], dtype=np.float32), dtype)


@pytest.mark.parametrize("dtype", ["F64", "F32", "F16", "BF16"])
def test_count_nonfinite(dtype: str) -> None:
    values = torch.ones(1000, dtype=torch.float64)
    values[[3, 500, 999]] = torch.tensor([torch.nan, torch.inf, -torch.inf], dtype=torch.float64)
    raw = raw_of(values.to(TORCH[dtype]))
    assert count_nonfinite(raw, dtype) == 3
    assert count_nonfinite(raw, dtype, chunk_bytes=64) == 3  # the same over many chunks
    assert count_nonfinite(raw_of(torch.full((9,), torch.finfo(TORCH[dtype]).max, dtype=TORCH[dtype])), dtype) == 0


@pytest.mark.parametrize("dtype", ["I8", "F8_E4M3", "nonsense"])
def test_other_formats_are_refused(dtype: str) -> None:
    with pytest.raises(CheckpointError, match=dtype):
        to_float32(np.zeros(8, np.uint8), dtype)
    with pytest.raises(CheckpointError, match=dtype):
        from_float32(np.zeros(8, np.float32), dtype)
