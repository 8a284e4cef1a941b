"""Hidden states of several prompts at once, and stored features as handles: on every engine, against `transformers`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from oracle import transformers

from smolvlm.config import ModelConfig, load_configs
from smolvlm.engines.base import Engine
from smolvlm.engines.native_engine import NativeEngine
from smolvlm.engines.torch_engine import TorchEngine
from smolvlm.errors import ContextLengthError, EngineError, PromptError
from smolvlm.nn.weights import load_model

RNG = np.random.default_rng(0)
# Of hidden states of size 1 (RMSNorm): float32 sums in another order; bfloat16 weights keep 8 bits, and q8 rounds like them.
TOLERANCES = {"plain": 3e-5, "packed": 3e-5, "static": 3e-5, "native bfloat16": 0.06, "native q8": 0.12}


QUICK = ("plain", "native q8")


@pytest.fixture(params=[name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in TOLERANCES], scope="module")
def named(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> tuple[str, Engine]:
    config, _ = load_configs(tiny_checkpoint)
    if request.param.startswith("native"):
        return request.param, NativeEngine(tiny_checkpoint, config, dtype=request.param.split()[1])
    model = load_model(tiny_checkpoint, config)
    return request.param, TorchEngine(model, pack=request.param != "plain", static_cache=request.param == "static")


@pytest.fixture(scope="module")
def engine(named: tuple[str, Engine]) -> Engine:
    return named[1]


@pytest.fixture(scope="module")
def reference(tiny_checkpoint: Path) -> torch.nn.Module:
    return transformers.SmolVLMForConditionalGeneration.from_pretrained(tiny_checkpoint, dtype=torch.float32).eval()


def _prompts(config: ModelConfig) -> tuple[list[list[int]], list[np.ndarray]]:
    """Three prompts: text, a picture of two tiles between words, a picture of one."""
    per_tile, image, side = config.image_seq_len, config.image_token_id, config.vision.image_size
    ids = RNG.integers(3, 40_000, 90).tolist()
    prompts = [ids[:7], [*ids[7:15], *[image] * per_tile, ids[15], *[image] * per_tile, *ids[16:40]], [*[image] * per_tile, *ids[40:43]]]
    pixels = [RNG.uniform(-1, 1, (tiles, 3, side, side)).astype(np.float32) for tiles in (0, 2, 1)]
    return prompts, pixels


def test_hidden_states_are_those_of_transformers(named: tuple[str, Engine], reference: torch.nn.Module) -> None:
    name, engine = named
    prompts, pixels = _prompts(engine.config)
    wanted = []
    for ids, tiles in zip(prompts, pixels, strict=True):
        pixel_values = torch.from_numpy(tiles)[None] if len(tiles) else None
        with torch.inference_mode():
            found = reference(input_ids=torch.tensor([ids]), pixel_values=pixel_values, output_hidden_states=True)
        wanted.append(found.hidden_states[-1][0].numpy())  # after the final norm
    seqs = [engine.open(200) for _ in prompts]
    embeds = [[engine.encode_images(tiles)] if len(tiles) else [] for tiles in pixels]
    got = engine.hidden(seqs, prompts, embeds, rows_to_keep=0)
    assert [engine.length(seq) for seq in seqs] == [len(ids) for ids in prompts]
    for ours, theirs in zip(got, wanted, strict=True):
        assert ours.shape == theirs.shape
        assert ours.dtype == np.float32
        assert np.sqrt(((ours - theirs) ** 2).mean()) < TOLERANCES[name] * np.sqrt((theirs**2).mean())
    last = engine.hidden([seqs[0]], [[5]])
    assert last[0].shape == (1, engine.config.text.hidden_size)
    for seq in seqs:
        engine.close(seq)


def test_a_batch_of_prompts_equals_each_alone_and_leaves_the_same_cache(engine: Engine) -> None:
    prompts, pixels = _prompts(engine.config)
    prompts = [*prompts, *(RNG.integers(3, 40_000, size).tolist() for size in (1, 600, 30, 511, 2))]
    embeds = [[engine.encode_images(tiles)] if len(tiles) else [] for tiles in pixels] + [[]] * 5
    together = [engine.open(700) for _ in prompts]
    for seq in together[::2]:  # some hold something already
        engine.prefill(seq, [9, 8, 7])
    got = engine.hidden(together, prompts, embeds, rows_to_keep=3)
    for i, (ids, each) in enumerate(zip(prompts, embeds, strict=True)):
        seq = engine.open(700)
        if i % 2 == 0:
            engine.prefill(seq, [9, 8, 7])
        alone = engine.hidden([seq], [ids], [each], rows_to_keep=3)[0]
        assert alone.shape == (min(3, len(ids)), engine.config.text.hidden_size)
        np.testing.assert_allclose(got[i], alone, atol=3e-5)
        np.testing.assert_allclose(engine.decode([together[i]], [11]), engine.decode([seq], [11]), atol=3e-5)
        engine.close(seq)
    for seq in together:
        engine.close(seq)


def test_hidden_states_lead_to_the_logits(engine: Engine, tiny_checkpoint: Path) -> None:
    """Prefill's logits are the output layer's product with the same rows."""
    if isinstance(engine, NativeEngine):
        head = load_model(tiny_checkpoint, load_configs(tiny_checkpoint)[0]).lm_head.weight.detach().float().numpy()
        tolerance = 0.02  # the output layer is quantized
    else:
        assert isinstance(engine, TorchEngine)
        head, tolerance = load_model(tiny_checkpoint, engine.config).lm_head.weight.detach().float().numpy(), 2e-5
    ids = RNG.integers(3, 40_000, 50).tolist()
    one, other = engine.open(60), engine.open(60)
    rows = engine.hidden([one], [ids], rows_to_keep=4)[0]
    logits = engine.prefill(other, ids, logits_to_keep=4)
    assert np.sqrt(((rows @ head.T - logits) ** 2).mean()) < tolerance * max(1.0, float(np.abs(logits).max()))
    engine.close(one)
    engine.close(other)


def test_wrong_prompts_change_nothing(engine: Engine) -> None:
    seqs = [engine.open(10), engine.open(10)]
    image = engine.config.image_token_id
    for error, arguments in (
        (EngineError, (seqs, [[1, 2]])),
        (EngineError, ([seqs[0], seqs[0]], [[1], [2]])),
        (EngineError, (seqs, [[1], []])),
        (EngineError, (seqs, [[1], list(range(3, 14))])),
        (EngineError, (seqs, [[1], [10**6]])),
        (EngineError, ([seqs[0], 999], [[1], [2]])),
        (PromptError, (seqs, [[1], [image]])),
    ):
        with pytest.raises(error):
            engine.hidden(*arguments)
    with pytest.raises(EngineError):
        engine.hidden(seqs, [[1], [2]], rows_to_keep=-1)
    assert [engine.length(seq) for seq in seqs] == [0, 0]
    assert engine.hidden([], []) == []
    for seq in seqs:
        engine.close(seq)
    with pytest.raises((EngineError, ContextLengthError)):
        engine.hidden(seqs, [[1], [2]])


def test_stored_features_give_the_same_logits(engine: Engine) -> None:
    prompts, pixels = _prompts(engine.config)
    fresh = engine.encode_images(pixels[1])
    stored = engine.stored_embeds(fresh.numpy())
    assert len(stored) == 2
    np.testing.assert_array_equal(stored.numpy(), fresh.numpy())
    np.testing.assert_array_equal(stored.tiles(1, 2).numpy(), fresh.numpy()[1:])
    one, other = engine.open(200), engine.open(200)
    np.testing.assert_array_equal(engine.prefill(one, prompts[1], [fresh]), engine.prefill(other, prompts[1], [stored]))
    engine.close(one)
    engine.close(other)
    rows = fresh.numpy()
    kept = rows.copy()
    handle = engine.stored_embeds(rows)
    rows[:] = 0  # the caller's memory is the caller's
    np.testing.assert_array_equal(handle.numpy(), kept)
    for wrong in (kept[0], kept[:, :-1], kept[..., :-1], kept.astype(np.int32), np.full_like(kept, np.nan)):
        with pytest.raises(EngineError, match="features"):
            engine.stored_embeds(wrong)
