"""The torch engine: precisions, devices, and names that it does not know."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.config import load_configs
from smolvlm.engines.base import Engine
from smolvlm.engines.select import make_engine
from smolvlm.errors import EngineError
from smolvlm.nn.weights import load_model

RNG = np.random.default_rng(0)
IDS = RNG.integers(3, 40_000, 70).tolist()


@pytest.fixture(scope="module")
def uncached(tiny_checkpoint: Path) -> np.ndarray:
    """(70, vocab): every position's logits in one float32 pass without any cache."""
    config, _ = load_configs(tiny_checkpoint)
    with torch.inference_mode():
        return load_model(tiny_checkpoint, config)(torch.tensor([IDS]))[0].numpy()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_stays_near_float32(tiny_checkpoint: Path, uncached: np.ndarray, dtype: str) -> None:
    config, _ = load_configs(tiny_checkpoint)
    engine = make_engine(tiny_checkpoint, config, engine="torch", dtype=dtype, device="cpu")
    assert isinstance(engine, Engine)
    assert engine.dtype == dtype
    seq = engine.open(70)
    # 8 bits of mantissa, three layers, logits of size 1: a few units of 2^-8.
    assert np.abs(engine.prefill(seq, IDS, logits_to_keep=0) - uncached).max() < 0.03
    engine.rewind(seq, 69)
    assert np.abs(engine.decode([seq], [IDS[69]])[0] - uncached[69]).max() < 0.03


@pytest.mark.parametrize(("argument", "value"), [("engine", "tensorflow"), ("device", "abacus"), ("dtype", "int3")])
def test_unknown_choices_are_named(tiny_checkpoint: Path, argument: str, value: str) -> None:
    config, _ = load_configs(tiny_checkpoint)
    with pytest.raises(EngineError, match=f"{argument}='{value}'"):
        make_engine(tiny_checkpoint, config, **{argument: value})


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_an_absent_device_is_no_silent_fallback(tiny_checkpoint: Path) -> None:
    config, _ = load_configs(tiny_checkpoint)
    with pytest.raises(EngineError, match="not available"):
        make_engine(tiny_checkpoint, config, engine="torch", device="cuda")


@pytest.mark.cuda
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_cuda_graphs_equal_the_cpu(tiny_checkpoint: Path, uncached: np.ndarray, dtype: str) -> None:
    config, _ = load_configs(tiny_checkpoint)
    engine = make_engine(tiny_checkpoint, config, dtype=dtype, device="cuda")
    seqs = [engine.open(300) for _ in range(3)]
    for i, seq in enumerate(seqs):
        engine.prefill(seq, IDS[: 20 + i])
    for step in range(40):
        logits = engine.decode(seqs, [IDS[20 + i + step] for i in range(3)])
        assert np.abs(logits - uncached[[20 + i + step for i in range(3)]]).max() < (1e-3 if dtype == "float32" else 0.05)
