"""`hidden`: the decoder's last state of whole prompts, against `transformers` on the same checkpoint and the same media."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from oracle import transformers

import smolvlm
from smolvlm import SmolVLM
from smolvlm.errors import ContextLengthError, ParamsError
from smolvlm.hub import resolve

NANO = Path(__file__).parents[2] / "examples" / "media" / "nano"
REQUESTS: list[tuple[Any, str]] = [
    (None, "a red circle"),
    (NANO / "sign.png", "What does the sign say?"),
    (NANO / "clip.mp4", "What happens in this video?"),
    ([NANO / "before.png", NANO / "after.png"], "What has changed?"),
]
# Relative to the states' size: float32 in another order; bfloat16 weights; q8, whose rounding also moves the encoder's output.
ENGINES = {"torch float32": 1e-4, "native bfloat16": 0.03, "native q8": 0.06}


QUICK = "native q8"


@pytest.fixture(scope="module", params=[name if name == QUICK else pytest.param(name, marks=pytest.mark.slow) for name in ENGINES])
def named(request: pytest.FixtureRequest) -> tuple[str, SmolVLM]:
    engine, dtype = request.param.split()
    return request.param, smolvlm.load("nano", engine=engine, dtype=dtype)


@pytest.fixture(scope="module")
def reference() -> list[np.ndarray]:
    """All rows of each request by `transformers`, in float32, over the ids and pixels of our processor, which other tests hold
    against theirs."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(resolve("nano"), dtype=torch.float32).eval()
    ours = smolvlm.load("nano", engine="torch", dtype="float32")
    found = []
    for media, prompt in REQUESTS:
        inputs = ours.processor(ours.messages(media, prompt))
        pixels = torch.from_numpy(inputs.pixel_values)[None] if inputs.tile_count else None
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([inputs.input_ids]), pixel_values=pixels, output_hidden_states=True)
        found.append(states.hidden_states[-1][0].numpy())
    return found


def _close(ours: np.ndarray, theirs: np.ndarray, tolerance: float) -> bool:
    return ours.shape == theirs.shape and bool(np.sqrt(((ours - theirs) ** 2).mean() / (theirs**2).mean()) < tolerance)


def test_states_are_those_of_transformers(named: tuple[str, SmolVLM], reference: list[np.ndarray]) -> None:
    name, model = named
    rows = model.hidden_many(REQUESTS, pool="all")
    for ours, theirs in zip(rows, reference, strict=True):
        assert ours.dtype == np.float32
        assert _close(ours, theirs, ENGINES[name])
    for ours, theirs in zip(model.hidden_many(REQUESTS), reference, strict=True):
        assert _close(ours, theirs[-1], 2 * ENGINES[name])
    for ours, theirs in zip(model.hidden_many(REQUESTS, pool="mean"), reference, strict=True):
        assert _close(ours, theirs.mean(0), 2 * ENGINES[name])


def test_one_prompt_a_conversation_and_stored_media_are_the_same(named: tuple[str, SmolVLM]) -> None:
    _, model = named
    wanted = model.hidden_many(REQUESTS)
    media, prompt = REQUESTS[1]
    np.testing.assert_allclose(model.hidden(media, prompt), wanted[1], atol=1e-4)
    np.testing.assert_allclose(model.hidden(model.encode(media), prompt), wanted[1], atol=1e-4)
    content = [{"type": "image", "path": str(media)}, {"type": "text", "text": prompt}]
    np.testing.assert_allclose(model.hidden_many([[{"role": "user", "content": content}]])[0], wanted[1], atol=1e-4)
    tokens = len(model.processor(model.messages(media, prompt)).input_ids)
    assert model.hidden(media, prompt, pool="all").shape == (tokens, model.config.text.hidden_size)


def test_many_texts_go_in_groups(named: tuple[str, SmolVLM]) -> None:
    _, model = named
    texts = [f"{'very ' * (i % 9)}red circle number {i}" for i in range(70)]
    together = model.hidden_many([(None, text) for text in texts])
    for i in (0, 63, 64, 69):
        np.testing.assert_allclose(together[i], model.hidden(None, texts[i]), atol=1e-4)
    assert model.hidden_many([]) == []


def test_wrong_requests(named: tuple[str, SmolVLM]) -> None:
    _, model = named
    with pytest.raises(ParamsError, match="pool='max'"):
        model.hidden(None, "a", pool="max")  # type: ignore[arg-type]
    with pytest.raises(ParamsError, match="hidden generates nothing"):
        model.hidden(None, "a", temperature=1)
    before = model.runtime.counters.tokens_prefilled
    with pytest.raises(ContextLengthError):
        model.hidden_many([(None, "short"), (None, "word " * 20_000)])
    assert model.runtime.counters.tokens_prefilled == before


def test_a_system_message_beside_a_conversation_is_refused(named: tuple[str, SmolVLM]) -> None:
    with pytest.raises(ParamsError, match="system is for"):
        named[1].hidden_many([[{"role": "user", "content": "Hello"}]], system="Be brief.")
