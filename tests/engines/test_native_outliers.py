"""Massive activations as the 500M checkpoint has them: one channel of the residual stream at -15,504, at some tokens.

A published prompt of eleven tokens has a standard deviation of 148 there, so one token in eleven carries it; here every 32nd does.
The output layer leans to one token for each input, so that the gap between the best two tokens is what language models have (a nat
or two; a purely random one has almost none, and its best token turns with any rounding). For contrast: one scale for a whole row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from smolvlm.checkpoint.random import CHAT_TEMPLATE, TINY, random_tensors
from smolvlm.checkpoint.random_tokenizer import official_tokenizer_json
from smolvlm.checkpoint.writer import write_checkpoint
from smolvlm.config import ModelConfig, load_configs, preset, processor_preset
from smolvlm.engines.native_engine import NativeEngine
from smolvlm.engines.torch_engine import TorchEngine
from smolvlm.nn.weights import load_model

pytest.importorskip("smolvlm.engines._native", reason="the native engine is not built here")

CHANNEL, HEIGHT, MASSIVE = 77, -15_504.0, 1000  # tokens below MASSIVE carry it
POSITIONS, EVERY = 512, 16
FloatArray = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def outlier_tensors(config: ModelConfig, lean: float) -> Iterator[tuple[str, FloatArray]]:
    vocab, dim = config.text.vocab_size, config.text.hidden_size
    rng = np.random.default_rng(11)
    embedding = rng.standard_normal((vocab, dim), dtype=np.float32)
    for name, values in random_tensors(config, 5):
        if name == "lm_head.weight":
            head = rng.standard_normal((vocab, dim), dtype=np.float32) * np.float32(0.06)
            head[rng.permutation(vocab)] += np.float32(lean) * embedding
            head[:, CHANNEL] = 0  # no word follows from it
            yield name, head
        elif name.endswith("embed_tokens.weight"):
            yield name, np.where((np.arange(vocab)[:, None] < MASSIVE) & (np.arange(dim) == CHANNEL), HEIGHT, embedding)
        else:
            yield name, values


def write(folder: Path, layers: int, lean: float) -> ModelConfig:
    whole = preset("500m")
    config = replace(
        whole,
        vision=TINY.vision,
        scale_factor=TINY.scale_factor,
        tie_word_embeddings=False,
        text=replace(whole.text, num_hidden_layers=layers),
    )
    write_checkpoint(
        folder, outlier_tensors(config, lean), config, processor_preset(config), official_tokenizer_json(), CHAT_TEMPLATE, dtype="bfloat16"
    )
    return load_configs(folder)[0]


def by_the_row(x: torch.Tensor) -> torch.Tensor:
    scale = x.abs().amax(-1, keepdim=True).clamp_min(1e-30) / 127
    return (x / scale).round() * scale


def logits_by_the_row(folder: Path, config: ModelConfig, ids: list[int]) -> FloatArray:
    """The same graph with 8 bits and one scale for a whole row, of activations and of weights."""
    model = load_model(folder, config, device=torch.device("cpu"), dtype=torch.float32)
    for module in (*model.model.text_model.modules(), model.lm_head):
        if isinstance(module, torch.nn.Linear):
            module.weight.data = by_the_row(module.weight.data)
            module.register_forward_pre_hook(lambda _, inputs: (by_the_row(inputs[0]),))
    with torch.inference_mode():
        text = model.model.text_model
        hidden = text(text.embed_tokens(torch.tensor([ids])), torch.arange(len(ids))[None])
        return model.lm_head(hidden)[0].numpy()


@pytest.mark.slow
@pytest.mark.parametrize(("layers", "lean"), [(4, 0.0115), pytest.param(32, 0.0175, marks=pytest.mark.timeout(1800))])
def test_massive_activations_leave_the_best_token_where_it_was(tmp_path: Path, layers: int, lean: float) -> None:
    config = write(tmp_path / "outlier", layers, lean)
    draw = np.random.default_rng(3)
    ids = draw.integers(MASSIVE, 49_000, POSITIONS).tolist()
    ids[::EVERY] = draw.integers(17, MASSIVE, len(ids[::EVERY])).tolist()

    def logits(engine: NativeEngine | TorchEngine) -> FloatArray:
        return engine.prefill(engine.open(POSITIONS), ids, logits_to_keep=0)

    reference = logits(TorchEngine.from_folder(tmp_path / "outlier", config, device="cpu", dtype="float32"))
    best = reference.argmax(1)
    two = np.sort(reference, 1)[:, -2:]
    gap = float(np.median(two[:, 1] - two[:, 0]))

    def kept(ours: FloatArray) -> tuple[float, float]:
        """The share of positions with the same best token: of all, and of the massive ones."""
        same = ours.argmax(1) == best
        return float(same.mean()), float(same[::EVERY].mean())

    shares = {
        dtype: kept(logits(NativeEngine(tmp_path / "outlier", config, dtype=dtype))) for dtype in ("bfloat16", "q8", "q8,kv=q8", "q4")
    }
    shares["a scale a row"] = kept(logits_by_the_row(tmp_path / "outlier", config, ids))
    print(f"{layers} layers, {gap:.2f} nats between the best two; best token kept, of all and of the massive: {shares}")
    assert 0.5 < gap < 3
    assert shares["q8"][0] >= 0.99
    assert shares["a scale a row"][1] < 0.5  # such a token's own word is lost
