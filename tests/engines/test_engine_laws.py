"""The laws that every engine keeps, each against a run without a cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.config import load_configs
from smolvlm.engines.base import Engine, ImageEmbeds
from smolvlm.engines.native_engine import NativeEngine
from smolvlm.engines.torch_engine import TorchEngine
from smolvlm.errors import ContextLengthError, EngineError, PromptError
from smolvlm.nn.weights import load_model

# Sums in another order: a few hundred float32 roundings of logits of size 1.
TOLERANCE = 2e-5
RNG = np.random.default_rng(0)
IDS = RNG.integers(3, 40_000, 70).tolist()


@pytest.fixture(params=["plain", "packed", "static", "native bfloat16", "native q8", "native q4"], scope="module")
def engine(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Engine:
    config, _ = load_configs(tiny_checkpoint)
    if request.param.startswith("native"):
        return NativeEngine(tiny_checkpoint, config, dtype=request.param.split()[1])
    return TorchEngine(load_model(tiny_checkpoint, config), pack=request.param != "plain", static_cache=request.param == "static")


@pytest.fixture(scope="module")
def uncached(engine: Engine, tiny_checkpoint: Path) -> np.ndarray:
    """(70, vocab): every position's logits in one pass. Without any cache, in float32; for the native engine, whose rounding
    is its own, its single prefill, which `test_native_engine` holds against float32."""
    if isinstance(engine, NativeEngine):
        seq = engine.open(70)
        logits = engine.prefill(seq, IDS, logits_to_keep=0)
        engine.close(seq)
        return logits
    config, _ = load_configs(tiny_checkpoint)
    with torch.inference_mode():
        return load_model(tiny_checkpoint, config)(torch.tensor([IDS]))[0].numpy()


def close(ours: np.ndarray, expected: np.ndarray) -> bool:
    return ours.shape == expected.shape and float(np.abs(ours - expected).max()) < TOLERANCE


def test_cached_equals_uncached(engine: Engine, uncached: np.ndarray) -> None:
    seq = engine.open(70)
    assert close(engine.prefill(seq, IDS[:40]), uncached[39:40])
    for position in range(40, 70):
        assert close(engine.decode([seq], [IDS[position]]), uncached[position : position + 1])
    assert engine.length(seq) == 70
    engine.close(seq)


@pytest.mark.parametrize("chunks", [[70], [1] * 70, [3, 30, 1, 36], [69, 1]])
def test_prefill_in_chunks_equals_at_once(engine: Engine, uncached: np.ndarray, chunks: list[int]) -> None:
    seq, done = engine.open(70), 0
    rows = []
    for size in chunks:
        rows.append(engine.prefill(seq, IDS[done : done + size], logits_to_keep=0))
        done += size
    assert close(np.concatenate(rows), uncached)
    engine.close(seq)


def test_a_batch_equals_its_members_alone(engine: Engine, uncached: np.ndarray) -> None:
    lengths = [5, 64, 33]
    seqs = [engine.open(70) for _ in lengths]
    for seq, length in zip(seqs, lengths, strict=True):
        engine.prefill(seq, IDS[:length])
    order = [2, 0, 1]
    for step in range(5):
        logits = engine.decode([seqs[i] for i in order], [IDS[lengths[i] + step] for i in order])
        assert close(logits, uncached[[lengths[i] + step for i in order]])
    engine.close(seqs[1])
    logits = engine.decode([seqs[0], seqs[2]], [IDS[10], IDS[38]])  # a member left; the rest go on
    assert close(logits, uncached[[10, 38]])
    for seq in seqs:
        engine.close(seq)


def test_fork_and_rewind_equal_fresh(engine: Engine, uncached: np.ndarray) -> None:
    seq = engine.open(70)
    engine.prefill(seq, IDS[:20])
    twin = engine.fork(seq)
    engine.prefill(twin, [7] * 9)  # the twin goes elsewhere; the first must not notice
    assert close(engine.decode([seq], [IDS[20]]), uncached[20:21])
    engine.rewind(twin, 20)
    assert close(engine.prefill(twin, IDS[20:50]), uncached[49:50])
    engine.rewind(seq, 0)
    assert close(engine.prefill(seq, IDS), uncached[69:70])
    engine.close(seq)
    assert close(engine.decode([twin], [IDS[50]]), uncached[50:51])  # closing the first frees nothing of the twin
    engine.close(twin)


def test_random_schedules_equal_a_plain_reference(engine: Engine, uncached: np.ndarray) -> None:
    """open, prefill, decode, fork, rewind and close in random order; what each sequence holds is tracked by hand."""
    rng = np.random.default_rng(5)
    held: dict[int, int] = {}
    for _ in range(150):
        action = rng.choice(["open", "prefill", "decode", "decode", "fork", "rewind", "close"])
        if action == "open" and len(held) < 5:
            held[engine.open(int(rng.integers(70, 90)))] = 0
        elif held:
            seq = int(rng.choice(list(held)))
            if action == "prefill" and held[seq] < 70:
                size = int(rng.integers(1, 71 - held[seq]))
                assert close(engine.prefill(seq, IDS[held[seq] : held[seq] + size])[0], uncached[held[seq] + size - 1])
                held[seq] += size
            elif action == "decode":
                ready = [s for s in held if 0 < held[s] < 70]
                if ready:
                    logits = engine.decode(ready, [IDS[held[s]] for s in ready])
                    assert close(logits, uncached[[held[s] for s in ready]])
                    held.update({s: held[s] + 1 for s in ready})
            elif action == "fork" and len(held) < 5:
                held[engine.fork(seq)] = held[seq]
            elif action == "rewind":
                held[seq] = int(rng.integers(0, held[seq] + 1))
                engine.rewind(seq, held[seq])
            elif action == "close":
                engine.close(seq)
                del held[seq]
        assert all(engine.length(seq) == length for seq, length in held.items())
    for seq in held:
        engine.close(seq)


def test_image_embeds_are_handles(engine: Engine) -> None:
    side = engine.config.vision.image_size
    pixels = RNG.random((3, 3, side, side), dtype=np.float32)
    embeds = engine.encode_images(pixels)
    assert isinstance(embeds, ImageEmbeds)
    assert embeds.numpy().shape == (3, engine.config.image_seq_len, engine.config.text.hidden_size)
    again = engine.encode_images(pixels[1:])
    assert len(again) == len(embeds.tiles(1, 3)) == 2
    assert close(again.numpy(), embeds.tiles(1, 3).numpy())
    assert close(again.numpy(), embeds.numpy()[1:])


def test_images_in_chunks_equal_images_at_once(engine: Engine) -> None:
    side, per_tile = engine.config.vision.image_size, engine.config.image_seq_len
    embeds = engine.encode_images(RNG.random((2, 3, side, side), dtype=np.float32))
    ids = [5, *[engine.config.image_token_id] * per_tile, 6, *[engine.config.image_token_id] * per_tile, 7]
    whole, parts = engine.open(64), engine.open(64)
    expected = engine.prefill(whole, ids, [embeds])
    engine.prefill(parts, ids[: per_tile + 1], [embeds.tiles(0, 1)])
    assert close(engine.prefill(parts, ids[per_tile + 1 :], [embeds.tiles(1, 2)]), expected)


def test_misuse_is_named(engine: Engine) -> None:
    seq = engine.open(8)
    with pytest.raises(EngineError, match="room for 8 tokens, holds 0 and was given 9"):
        engine.prefill(seq, IDS[:9])
    with pytest.raises(EngineError, match="outside the vocabulary"):
        engine.prefill(seq, [49280])
    with pytest.raises(PromptError, match="1 image tokens, but 0 rows"):
        engine.prefill(seq, [engine.config.image_token_id])
    with pytest.raises(EngineError, match="without a token"):
        engine.prefill(seq, [])
    with pytest.raises(EngineError, match="distinct"):
        engine.decode([seq, seq], [1, 2])
    with pytest.raises(EngineError, match="cannot rewind to 3"):
        engine.rewind(seq, 3)
    with pytest.raises(ContextLengthError, match="context is 8192"):
        engine.open(8193)
    with pytest.raises(EngineError, match="expected \\(tiles, 3"):
        engine.encode_images(np.zeros((1, 3, 8, 8), np.float32))
    assert engine.length(seq) == 0  # nothing of the refused calls stayed
    engine.close(seq)
    engine.close(seq)
    with pytest.raises(EngineError, match="not open"):
        engine.decode([seq], [1])
