"""The torch engine's page pool: what is shared, what is copied, and that memory follows the tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.config import load_configs
from smolvlm.engines.base import Engine
from smolvlm.engines.torch_cache import PAGE_TOKENS, PagePool, SequenceCache
from smolvlm.engines.torch_engine import TorchEngine
from smolvlm.nn.weights import load_model

RNG = np.random.default_rng(0)
IDS = RNG.integers(3, 40_000, 300).tolist()


@pytest.fixture(params=["plain", "static"], scope="module")
def engine(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> TorchEngine:
    config, _ = load_configs(tiny_checkpoint)
    return TorchEngine(load_model(tiny_checkpoint, config), pack=False, static_cache=request.param == "static")


def test_pages_follow_the_tokens(engine: Engine) -> None:
    whole = engine.open(engine.config.text.max_position_embeddings)
    assert engine.kv_pages == 0  # a promise costs nothing
    engine.prefill(whole, IDS[: 2 * PAGE_TOKENS])
    assert engine.kv_pages == 2
    fork = engine.fork(whole)
    assert engine.kv_pages == 2
    engine.decode([fork], [5])
    assert engine.kv_pages == 3
    engine.rewind(fork, PAGE_TOKENS + 1)
    assert engine.kv_pages == 2
    engine.decode([fork], [6])  # into a page that both have: it is copied
    assert engine.kv_pages == 3
    engine.close(whole)
    assert engine.kv_pages == 2
    engine.close(fork)
    assert engine.kv_pages == 0


def test_random_calls_equal_a_fresh_prefill(engine: Engine) -> None:
    """Forks, rewinds and closes in any order: whatever a sequence has gone through, its next logits are those of its tokens."""
    rng = np.random.default_rng(4)
    held: dict[int, list[int]] = {}
    for _ in range(60):
        action = rng.choice(["open", "append", "decode", "fork", "rewind", "close"]) if held else "open"
        seq = int(rng.choice(list(held))) if held else 0
        if action == "open" and len(held) < 6:
            seq = engine.open(400)
            held[seq] = rng.integers(3, 40_000, int(rng.integers(1, 150))).tolist()
            engine.prefill(seq, held[seq])
        elif action == "append" and len(held[seq]) < 300:
            more = rng.integers(3, 40_000, int(rng.integers(1, 80))).tolist()
            engine.prefill(seq, more)
            held[seq] += more
        elif action == "decode":
            ready = [each for each in held if len(held[each]) < 390]
            tokens = rng.integers(3, 40_000, len(ready)).tolist()
            engine.decode(ready, tokens)
            for each, token in zip(ready, tokens, strict=True):
                held[each].append(token)
        elif action == "fork" and len(held) < 6:
            held[engine.fork(seq)] = list(held[seq])
        elif action == "rewind":
            length = int(rng.integers(1, len(held[seq]) + 1))
            engine.rewind(seq, length)
            del held[seq][length:]
        elif action == "close" and len(held) > 1:
            engine.close(seq)
            del held[seq]
    assert held
    for seq, ids in held.items():
        fresh = engine.open(400)
        expected = engine.prefill(fresh, [*ids, 7])
        assert np.abs(engine.decode([seq], [7]) - expected).max() < 2e-5
        engine.close(fresh)
        engine.close(seq)
    assert engine.kv_pages == 0


def test_the_pool_gives_back_what_it_took(tiny_checkpoint: Path) -> None:
    """64 sequences of the whole context hold what their tokens need, twice that at most, and nothing afterwards."""
    config, _ = load_configs(tiny_checkpoint)
    pool = PagePool(config.text, torch.device("cpu"), torch.float32)
    caches = [pool.open(config.text.max_position_embeddings) for _ in range(64)]
    for cache in caches:
        pool.reserve([cache], [100])
        cache.length = 100
    assert pool.in_use == 128
    assert pool.keys[0].shape[1] <= 2 * 129 * PAGE_TOKENS
    for cache in caches:
        pool.close(cache)
    assert (pool.in_use, pool.keys[0].shape[1]) == (0, PAGE_TOKENS)


def test_a_sequence_alone_is_never_gathered(tiny_checkpoint: Path) -> None:
    config, _ = load_configs(tiny_checkpoint)
    pool = PagePool(config.text, torch.device("cpu"), torch.float32)
    cache = SequenceCache(1000)
    for _ in range(500):
        pool.reserve([cache], [1])
        assert isinstance(cache.slots(0, cache.length + 1, pool.device), slice)
        cache.length += 1
