"""Every kernel of every instruction set that this machine has, against float64 on what its operands really are."""

from __future__ import annotations

import numpy as np
import pytest

native = pytest.importorskip("smolvlm.engines._native", reason="the native engine is not built here")
probe = native.probe

SETS = native.instruction_sets()
if "avx512_bf16" in SETS:
    SETS.append("amx_emulated")  # the tiles of AMX in software, whatever the processor has
TILES = [name for name in SETS if name.startswith("amx")]
FORMATS = ["bf16", "q8", "q4"]
# One row to many, sizes that are multiples of nothing, and those of the models.
SHAPES = [(1, 32, 32), (3, 50, 70), (13, 96, 576), (25, 130, 100), (8, 34, 1536), (7, 192, 4304), (77, 66, 96)]
NONE = np.zeros(0, np.float32)


def random(rng: np.random.Generator, *shape: int, scale: float = 1.0) -> np.ndarray:
    return (rng.standard_normal(shape) * scale).astype(np.float32)


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("weights", FORMATS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_products(instructions: str, weights: str, shape: tuple[int, int, int]) -> None:
    rng = np.random.default_rng(1)
    m, n, k = shape
    x, w, bias = random(rng, m, k), random(rng, n, k, scale=0.1), random(rng, n)
    exact = probe.pack(instructions, weights, x).astype(np.float64) @ probe.quantised(weights, w).astype(np.float64).T
    size = np.abs(exact).max()
    results = {after: probe.product(instructions, weights, x, w, bias, after) for after in ("store", "add", "store_bf16", "gelu")}
    # float32 sums of k products, in some order; tiles widen quantized weights to bf16 first
    bound = 2**-8 if instructions in TILES and weights != "bf16" and m >= 32 else 3e-6
    assert np.abs(results["store"] - (exact + bias)).max() < bound * size
    assert np.abs(results["add"] - (exact + bias + 1)).max() < bound * size
    assert np.abs(results["store_bf16"] - (exact + bias)).max() < 2**-8 * (size + 4)
    # what goes to the next product is rounded to bf16, or to 8 bits of the block's largest value
    assert np.abs(results["gelu"] - gelu(exact + bias)).max() < 2**-8 * (size + 4)
    gate, up = exact[:, : n // 2], exact[:, n // 2 :]
    pairs = silu(gate) * up
    assert np.abs(probe.product(instructions, weights, x, w, NONE, "swiglu") - pairs).max() < 2**-7 * np.abs(pairs).max()


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("kept", ["bf16", "q8"])
@pytest.mark.parametrize(
    ("dim", "rows", "keys", "group"), [(64, 10, 300, 1), (72, 100, 729, 1), (32, 7, 33, 1), (64, 48, 1000, 3), (16, 1, 1, 1)]
)
def test_attention(instructions: str, kept: str, dim: int, rows: int, keys: int, group: int) -> None:
    rng = np.random.default_rng(2)
    query, key, value = random(rng, rows, dim), random(rng, keys, dim), random(rng, keys, dim)
    visible = np.maximum(1, keys - (rows - 1 - np.arange(rows)) // group).astype(np.int32)
    q, k, v = (probe.pack("scalar", "bf16", x).astype(np.float64) for x in (query, key, value))
    if kept == "q8":
        k, v = by_the_token(key), by_the_token(value)
    scores = np.where(np.arange(keys) < visible[:, None], q @ k.T / np.sqrt(dim), -np.inf)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    expected = weights @ v / weights.sum(1, keepdims=True)
    # the weights are rounded to bf16 before they meet the values
    assert np.abs(probe.attend(instructions, kept, query, key, value, visible, 1) - expected).max() < 2**-8


def by_the_token(x: np.ndarray) -> np.ndarray:
    """What a cache of 8-bit integers holds: one scale a token."""
    scale = np.abs(x).astype(np.float64).max(1, keepdims=True) / 127
    return np.rint(x / scale) * scale


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("weights", ["bf16", "q8"])
@pytest.mark.parametrize("k", [1, 31, 32, 100, 577])
def test_packing_activations(instructions: str, weights: str, k: int) -> None:
    x = random(np.random.default_rng(3), 5, k)
    x[1] = 0
    x[2, 0] = 15_000  # one channel far above the rest: it may spoil its own block of 32 and no other
    packed = probe.pack(instructions, weights, x)  # five rows: too few for the tiles' own format
    assert np.array_equal(packed, probe.pack("scalar", weights, x))
    blocks = [np.abs(x[:, at : at + 32]).max(1, keepdims=True) for at in range(0, k, 32)]
    largest = np.repeat(np.concatenate(blocks, 1), 32, 1)[:, :k]
    bound = np.abs(x) * 2**-8 if weights == "bf16" else largest / 254 * (1 + 1e-5)
    assert np.all(np.abs(packed - x) <= bound)


@pytest.mark.parametrize("weights", FORMATS)
def test_quantising_weights(weights: str) -> None:
    w = random(np.random.default_rng(4), 40, 96)
    w[3, :32] = 0
    w[5, 40] = 1e4
    largest = np.repeat(np.abs(w).reshape(40, 3, 32).max(2), 32, 1)
    error = np.abs(probe.quantised(weights, w) - w)
    if weights == "q4":  # the best of several scales: better than the plain one on average, and never far off
        plain = largest / 7
        rounded = np.clip(np.round(w / np.where(plain, plain, 1)), -8, 7) * plain
        assert np.sqrt((error**2).mean(1)).mean() < np.sqrt(((rounded - w) ** 2).mean(1)).mean()
        assert np.all(error <= largest / 4)
    else:
        assert np.all(error <= (np.abs(w) * 2**-8 if weights == "bf16" else largest / 254 * 1.07))
    assert not error[3, :32].any()


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("n", [1, 16, 33, 576])
def test_norms(instructions: str, n: int) -> None:
    rng = np.random.default_rng(5)
    x, weight, bias = random(rng, 4, n) * 3 + 1, random(rng, n), random(rng, n)
    exact = x.astype(np.float64)
    rms = exact / np.sqrt((exact**2).mean(1, keepdims=True) + 1e-5) * weight
    centred = exact - exact.mean(1, keepdims=True)
    layer = centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-6) * weight + bias
    assert np.abs(probe.norm(instructions, x, weight, NONE, 1e-5) - rms).max() < 2e-5
    assert np.abs(probe.norm(instructions, x, weight, bias, 1e-6) - layer).max() < 2e-5


@pytest.mark.parametrize("instructions", SETS)
@pytest.mark.parametrize("n", [2, 64, 72])
def test_rotary(instructions: str, n: int) -> None:
    rng = np.random.default_rng(6)
    x, angle = random(rng, 3, n), random(rng, n // 2)
    cos, sin = np.cos(angle), np.sin(angle)
    turned = (x[:, : n // 2] + 1j * x[:, n // 2 :]) * (cos + 1j * sin)  # a rotation is a product with a complex number
    expected = np.concatenate((turned.real, turned.imag), 1)
    assert np.abs(probe.rotate(instructions, x, cos, sin) - expected).max() < 1e-6


def test_an_instruction_set_that_is_not_here_is_named() -> None:
    with pytest.raises(ValueError, match="'abacus' cannot run here; this machine has .*scalar"):
        probe.pack("abacus", "q8", random(np.random.default_rng(0), 1, 4))
