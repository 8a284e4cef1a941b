"""The native engine against float32 torch, over its formats and instruction sets; what it refuses, and how it is cancelled."""

from __future__ import annotations

import shutil
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from smolvlm.config import load_configs
from smolvlm.engines.native_engine import Formats, NativeEngine, native_module
from smolvlm.engines.select import make_engine
from smolvlm.engines.torch_engine import TorchEngine
from smolvlm.errors import CheckpointError, EngineError

native = pytest.importorskip("smolvlm.engines._native", reason="the native engine is not built here")

RNG = np.random.default_rng(7)
IDS = [i for i in RNG.integers(3, 40_000, 90).tolist() if i != 49190]


@pytest.fixture(scope="module")
def pixels(tiny_checkpoint: Path) -> np.ndarray:
    side = load_configs(tiny_checkpoint)[0].vision.image_size
    return RNG.standard_normal((2, 3, side, side), dtype=np.float32) * 0.5


def answers(engine: NativeEngine | TorchEngine, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Image embeddings, and the logits of every position of a prompt with two pictures and of four more tokens."""
    image, per_tile = engine.config.image_token_id, engine.config.image_seq_len
    ids = [5, *[image] * per_tile, 6, *[image] * per_tile, *IDS]
    embeds, seq = engine.encode_images(pixels), engine.open(len(ids) + 4)
    logits = [engine.prefill(seq, ids, [embeds], logits_to_keep=0)]
    logits += [engine.decode([seq], [token]) for token in IDS[:4]]
    engine.close(seq)
    return embeds.numpy(), np.concatenate(logits)


@pytest.fixture(scope="module")
def expected(tiny_checkpoint: Path, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    config, _ = load_configs(tiny_checkpoint)
    return answers(TorchEngine.from_folder(tiny_checkpoint, config, device="cpu", dtype="float32"), pixels)


SETS = native.instruction_sets()


@pytest.mark.parametrize("instructions", [*SETS, "amx_emulated"] if "avx512_bf16" in SETS else SETS)
@pytest.mark.parametrize(
    ("dtype", "images", "logits"), [("bfloat16", 0.01, 0.02), ("q8", 0.03, 0.06), ("q4", 0.03, 0.5), ("bfloat16,kv=q8", 0.01, 0.03)]
)
def test_near_float32(
    tiny_checkpoint: Path,
    pixels: np.ndarray,
    expected: tuple[np.ndarray, np.ndarray],
    instructions: str,
    dtype: str,
    images: float,
    logits: float,
) -> None:
    """Embeddings by their relative length, logits (of size 1) by the largest difference."""
    config, _ = load_configs(tiny_checkpoint)
    engine = NativeEngine(tiny_checkpoint, config, dtype=dtype, instructions=instructions)
    assert (engine.instructions, engine.dtype) == (instructions, dtype)
    embeds, scores = answers(engine, pixels)
    assert np.linalg.norm(embeds - expected[0]) < images * np.linalg.norm(expected[0])
    assert np.abs(scores - expected[1]).max() < logits


def test_threads_change_no_bit(tiny_checkpoint: Path, pixels: np.ndarray) -> None:
    config, _ = load_configs(tiny_checkpoint)
    first = answers(NativeEngine(tiny_checkpoint, config, threads=1), pixels)
    for threads in (1, 2, 3, 5, 24):
        for ours, again in zip(first, answers(NativeEngine(tiny_checkpoint, config, threads=threads), pixels), strict=True):
            assert np.array_equal(ours, again)


@pytest.mark.parametrize("length", [1, 64, 127, 128, 300, 1023, 1024, 1400])
@pytest.mark.parametrize(("kv", "bound"), [("bf16", 0.02), ("q8", 0.03)])
def test_lengths_of_context(tiny_checkpoint: Path, length: int, kv: str, bound: float) -> None:
    """Past 512 keys a lone token's attention is done in parts, past 512 tokens a prompt is, and both agree with torch."""
    config, _ = load_configs(tiny_checkpoint)
    ids = np.random.default_rng(length).integers(3, 40_000, length).tolist()
    logits = []
    for engine in (
        NativeEngine(tiny_checkpoint, config, dtype=f"bfloat16,kv={kv}"),
        TorchEngine.from_folder(tiny_checkpoint, config, device="cpu", dtype="float32"),
    ):
        seq = engine.open(1500)
        rows = [engine.prefill(seq, ids, logits_to_keep=1), engine.decode([seq], [9]), engine.decode([seq], [8])]
        logits.append(np.concatenate(rows))
    assert np.abs(logits[0] - logits[1]).max() < bound


def test_many_sequences_in_one_pass(tiny_checkpoint: Path) -> None:
    config, _ = load_configs(tiny_checkpoint)
    engine = NativeEngine(tiny_checkpoint, config)
    seqs = [engine.open(400) for _ in range(70)]  # more than one pass takes
    for i, seq in enumerate(seqs):
        engine.prefill(seq, (IDS * 2)[: 1 + i * 3])
    alone = [engine.fork(seq) for seq in seqs]
    together = engine.decode(seqs, [IDS[i] for i in range(70)])
    each = np.concatenate([engine.decode([seq], [IDS[i]]) for i, seq in enumerate(alone)])
    assert np.array_equal(together, each)


def test_pages_come_back(tiny_checkpoint: Path) -> None:
    config, _ = load_configs(tiny_checkpoint)
    engine = NativeEngine(tiny_checkpoint, config)
    seq = engine.open(200)
    engine.prefill(seq, (IDS * 2)[:140])  # three pages of 64
    twins = [engine.fork(seq) for _ in range(10)]
    assert engine._engine.pages_in_use == 3  # shared, not copied
    for twin in twins:
        engine.decode([twin], [4])
    assert engine._engine.pages_in_use == 3 + 10  # each wrote into the last page, and into that only
    for handle in (seq, *twins):
        engine.close(handle)
    assert engine._engine.pages_in_use == 0


def test_a_cancelled_call_leaves_everything_as_it_was(tiny_checkpoint: Path) -> None:
    config, _ = load_configs(tiny_checkpoint)
    engine = NativeEngine(tiny_checkpoint, config)
    seq = engine.open(8000)
    engine.prefill(seq, IDS[:40])
    before = engine.decode([engine.fork(seq)], [5])
    long = RNG.integers(3, 40_000, 7000).tolist()
    ended = threading.Event()

    def cancel_until_ended() -> None:
        while not ended.is_set():
            engine.cancel()
            time.sleep(0.001)

    canceller = threading.Thread(target=cancel_until_ended)
    canceller.start()
    try:
        with pytest.raises(EngineError, match="cancelled"):
            engine.prefill(seq, long)
    finally:
        ended.set()
        canceller.join()
    assert engine.length(seq) == 40
    assert np.array_equal(engine.decode([seq], [5]), before)


def damaged(source: Path, folder: Path, change: str) -> Path:
    shutil.copytree(source, folder)
    tensors = {name: tensor.copy() for name, tensor in load_file(folder / "model.safetensors").items()}
    if change == "nan":
        tensors["model.text_model.layers.1.mlp.up_proj.weight"][3, 5] = np.nan
    elif change == "infinite":
        tensors["model.vision_model.encoder.layers.0.layer_norm1.bias"][2] = np.inf
    elif change == "shape":
        tensors["lm_head.weight"] = tensors["lm_head.weight"][:-1]
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    if change == "short":
        data = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(data[:-1000])
    return folder


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("nan", r"up_proj.weight.*not finite"),
        ("infinite", r"layer_norm1.bias.*not finite"),
        ("shape", r"lm_head.weight \(49279"),
        ("short", r"model.safetensors"),
    ],
)
def test_a_damaged_checkpoint_is_refused_by_name(tiny_checkpoint: Path, tmp_path: Path, change: str, named: str) -> None:
    folder = damaged(tiny_checkpoint, tmp_path / "damaged", change)
    config, _ = load_configs(folder)
    with pytest.raises(CheckpointError, match=named):
        NativeEngine(folder, config)


@pytest.mark.parametrize("kept", ["float16", "bfloat16", "float64"])
def test_every_number_format_of_files(tiny_checkpoint: Path, tmp_path: Path, kept: str) -> None:
    folder = tmp_path / "other"
    shutil.copytree(tiny_checkpoint, folder)
    from safetensors.torch import load_file as load_torch
    from safetensors.torch import save_file as save_torch

    tensors = {name: t.to(getattr(torch, kept)) for name, t in load_torch(folder / "model.safetensors").items()}
    save_torch(tensors, folder / "model.safetensors", {"format": "pt"})
    config, _ = load_configs(folder)
    engine, other = (NativeEngine(path, config, dtype="bfloat16") for path in (folder, tiny_checkpoint))
    seqs = engine.open(20), other.open(20)
    assert np.abs(engine.prefill(seqs[0], IDS[:20]) - other.prefill(seqs[1], IDS[:20])).max() < 0.02


def test_the_choice_of_engine(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = load_configs(tiny_checkpoint)
    monkeypatch.setattr("smolvlm.engines.select._has_gpu", lambda: False)
    assert make_engine(tiny_checkpoint, config).name == "native"
    assert make_engine(tiny_checkpoint, config, device="cpu", dtype="bfloat16").name == "native"
    assert make_engine(tiny_checkpoint, config, dtype="float32").name == "torch"
    with pytest.raises(EngineError, match="runs on the CPU"):
        make_engine(tiny_checkpoint, config, engine="native", device="cuda")
    with pytest.raises(EngineError, match="native engine; use auto, bfloat16, q8, q4"):
        make_engine(tiny_checkpoint, config, engine="native", dtype="float32")
    monkeypatch.setattr("smolvlm.engines.native_engine.native_module", lambda: None)
    assert make_engine(tiny_checkpoint, config).name == "torch"
    with pytest.raises(EngineError, match="no C\\+\\+ compiler"):
        make_engine(tiny_checkpoint, config, dtype="q8")


def test_the_environment_forces_instructions_and_threads(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, _ = load_configs(tiny_checkpoint)
    monkeypatch.setenv("SMOLVLM_INSTRUCTIONS", "scalar")
    monkeypatch.setenv("SMOLVLM_THREADS", "3")
    engine = NativeEngine(tiny_checkpoint, config)
    assert (engine.instructions, engine.threads, engine.formats) == ("scalar", 3, Formats("q8", "q8", "q8"))
    monkeypatch.setenv("SMOLVLM_INSTRUCTIONS", "abacus")
    with pytest.raises(EngineError, match="'abacus' cannot run here"):
        NativeEngine(tiny_checkpoint, config)
    monkeypatch.setenv("SMOLVLM_INSTRUCTIONS", "")
    monkeypatch.setenv("SMOLVLM_THREADS", "many")
    with pytest.raises(EngineError, match="SMOLVLM_THREADS='many'"):
        NativeEngine(tiny_checkpoint, config)


def test_the_module_says_what_it_has() -> None:
    module = native_module()
    assert module is not None
    assert module.instruction_sets()[-1] == "scalar"
    assert module.usable_threads() >= 1
