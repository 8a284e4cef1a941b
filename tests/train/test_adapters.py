"""Adapters: hand-worked sums, peft's own merging as the oracle, what is refused, and the frozen base under the adapter."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import oracle  # noqa: F401  # before peft, which imports transformers
import peft
import pytest
import torch

import smolvlm
from smolvlm.checkpoint.adapter import Adapter, LowRank
from smolvlm.checkpoint.fingerprint import fingerprint
from smolvlm.checkpoint.random import TINY, write_random_checkpoint
from smolvlm.checkpoint.reader import CheckpointReader
from smolvlm.config import load_configs
from smolvlm.errors import AdapterError, MissingExtraError
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.weights import load_model
from smolvlm.train.adapters import AdapterOptions, adapter_parameters, add_adapter, save_adapter, target_modules, without_adapter

Q0 = "model.text_model.layers.0.self_attn.q_proj"
IDS = torch.tensor([[1, 11126, 42, 1812, 314, 260, 3575, 282, 4649, 47, 49279]])


def net(folder: Path, adapter: Adapter | None = None) -> SmolVLMForConditionalGeneration:
    return load_model(folder, load_configs(folder)[0], adapter=adapter)


def stir(module: torch.nn.Module, seed: int = 0) -> None:
    """Adapters start as zero: give every part of them values that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in adapter_parameters(module).values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.03)


@pytest.fixture(scope="module")
def trained(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = net(tiny_checkpoint)
    add_adapter(model, AdapterOptions(rank=2))
    stir(model)
    return save_adapter(model, tmp_path_factory.mktemp("adapter") / "lora", tiny_checkpoint)


def test_the_sums_by_hand() -> None:
    weight = np.array([[1, 2], [3, 4]], np.float32)
    a, b = np.array([[1, -1]], np.float32), np.array([[2], [0]], np.float32)
    # B @ A = [[2, -2], [0, 0]]; halved and added: [[2, 1], [3, 4]]
    np.testing.assert_array_equal(LowRank(a, b, 0.5).added_to(weight), [[2, 1], [3, 4]])
    # DoRA: rows of length sqrt(5) and 5 are scaled to the lengths 5 and 10
    dora = LowRank(a, b, 0.5, np.array([5, 10], np.float32)).added_to(weight)
    np.testing.assert_allclose(dora, [[2 * 5**0.5, 5**0.5], [6, 8]], rtol=1e-6)
    np.testing.assert_array_equal(weight, [[1, 2], [3, 4]])  # the base is left alone


@pytest.mark.parametrize(
    "settings",
    [
        {"r": 4, "lora_alpha": 8},
        {"r": 4, "lora_alpha": 8, "use_rslora": True},
        {"r": 4, "lora_alpha": 8, "use_dora": True},
        {"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 32}},
        {"r": 2, "lora_alpha": 2, "modules_to_save": ["lm_head"]},
    ],
    ids=["lora", "rslora", "dora", "patterns", "modules_to_save"],
)
def test_loading_equals_pefts_own_merging(tiny_checkpoint: Path, tmp_path: Path, settings: dict[str, Any]) -> None:
    """An adapter that peft made and saved on its own, applied by us; and peft's merge_and_unload of the same."""
    base = net(tiny_checkpoint)
    before = base(IDS).detach()
    config = peft.LoraConfig(target_modules=["q_proj", "up_proj", "down_proj", "proj", "fc1"], **settings)
    wrapped = peft.get_peft_model(base, config)
    stir(wrapped)
    if "modules_to_save" in settings:
        with torch.no_grad():
            wrapped.base_model.model.lm_head.weight.mul_(1.5)
    wrapped.save_pretrained(str(tmp_path / "adapter"))
    merged = wrapped.merge_and_unload()
    ours = net(tiny_checkpoint, Adapter(tmp_path / "adapter"))
    theirs = dict(merged.state_dict())
    for name, tensor in ours.state_dict().items():
        # float32 sums in another order: rank + 1 additions of values below 2
        torch.testing.assert_close(tensor, theirs[name], rtol=0, atol=2e-6, msg=lambda m, n=name: f"{n}: {m}")
    assert (ours(IDS) - before).abs().max() > 0.1, "the adapter must change something"


@pytest.mark.parametrize("method", ["lora", "dora"])
def test_what_we_save_loads_as_it_was_trained(tiny_checkpoint: Path, tmp_path: Path, method: str) -> None:
    model = net(tiny_checkpoint)
    base_logits = model(IDS).detach()
    add_adapter(model, AdapterOptions(method=method, rank=4, vision=True))
    torch.testing.assert_close(model(IDS), base_logits, rtol=0, atol=1e-5)  # a new adapter changes nothing
    stir(model)
    pixels = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
    wanted, seen = model(IDS).detach(), model.encode_images(pixels).detach()
    with without_adapter(model):
        torch.testing.assert_close(model(IDS), base_logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(model(IDS), wanted)
    folder = save_adapter(model, tmp_path / "adapter", tiny_checkpoint, "the tiny one")
    loaded = net(tiny_checkpoint, Adapter(folder))
    torch.testing.assert_close(loaded(IDS), wanted, rtol=0, atol=1e-4)
    torch.testing.assert_close(loaded.encode_images(pixels), seen, rtol=0, atol=1e-4)
    # and peft reads it: onto a fresh base, by its own loader
    theirs = peft.PeftModel.from_pretrained(net(tiny_checkpoint), str(folder))
    torch.testing.assert_close(theirs(IDS), wanted, rtol=0, atol=1e-4)


def test_only_the_adapter_learns(tiny_checkpoint: Path) -> None:
    model = net(tiny_checkpoint)
    add_adapter(model, AdapterOptions(rank=3))
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert trainable == set(adapter_parameters(model))
    assert len(trainable) == 2 * (3 * 7 + 1)  # A and B of seven layers a block, three blocks, and the connector
    assert set(target_modules(net(tiny_checkpoint), vision=True)) - set(target_modules(net(tiny_checkpoint), vision=False)) == {
        f"model.vision_model.encoder.layers.{i}.{name}"
        for i in range(2)
        for name in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.out_proj", "mlp.fc1", "mlp.fc2")
    }
    state = torch.get_rng_state()
    again = net(tiny_checkpoint)
    add_adapter(again, AdapterOptions(rank=3))
    assert torch.equal(state, torch.get_rng_state()), "drawing an adapter must not disturb the run's own randomness"
    for name, parameter in adapter_parameters(model).items():
        assert torch.equal(parameter, adapter_parameters(again)[name]), f"{name}: the same seed, the same adapter"
    with pytest.raises(AdapterError, match="already"):
        add_adapter(model, AdapterOptions())


def test_qlora_is_small_close_and_learns(tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    exact = net(tiny_checkpoint)
    weight = exact.get_submodule(Q0).weight.detach()
    model = net(tiny_checkpoint)
    add_adapter(model, AdapterOptions(method="qlora", rank=4))
    layer: Any = model.get_submodule(Q0)
    assert layer.base_layer.weight.element_size() * layer.base_layer.weight.numel() == weight.numel() // 2  # 4 bits each
    eye = torch.eye(weight.shape[1])
    with without_adapter(model):
        error = (layer(eye).T - weight).abs()
    # nf4's widest gap is 0.304 of a block's largest value, so the error is below half of that; its mean is far smaller.
    assert error.max() <= 0.16 * weight.abs().max()
    assert 0 < error.mean() < 0.12 * weight.abs().mean()
    loss = torch.nn.functional.cross_entropy(model(IDS)[0, :-1], IDS[0, 1:])
    loss.backward()
    optimizer = torch.optim.AdamW(adapter_parameters(model).values(), lr=0.02)
    for _ in range(8):
        optimizer.step()
        optimizer.zero_grad()
        now = torch.nn.functional.cross_entropy(model(IDS)[0, :-1], IDS[0, 1:])
        now.backward()
    assert now < loss - 0.5, f"the loss went from {loss:.2f} to {now:.2f} only"
    folder = save_adapter(model, tmp_path / "adapter", tiny_checkpoint)
    change = Adapter(folder).changes[f"{Q0}.weight"]
    a, b = (layer.get_submodule(f"lora_{x}.default").weight.detach().numpy() for x in "AB")
    np.testing.assert_array_equal(change.a, a)
    np.testing.assert_array_equal(change.b, b)
    assert change.scale == 32 / 4


def test_load_takes_an_adapter(tiny_checkpoint: Path, trained: Path) -> None:
    plain = smolvlm.load(tiny_checkpoint, dtype="float32", device="cpu")
    adapted = smolvlm.load(tiny_checkpoint, adapter=trained, dtype="float32", device="cpu")
    assert adapted.name == f"{tiny_checkpoint} + {trained}"
    question, options = "What is this?", ["a cat", "a dog"]
    scores = [m.choose(None, question, options).logprobs["a cat"] for m in (plain, adapted)]
    assert abs(scores[0] - scores[1]) > 0.01
    half = smolvlm.load(tiny_checkpoint, adapter=trained, dtype="bfloat16", device="cpu")
    # bfloat16 keeps 8 bits: over some 20 nats of a score, a few tenths
    assert half.choose(None, question, options).logprobs["a cat"] == pytest.approx(scores[1], abs=0.5)


def test_a_wrong_base_is_refused(tiny_checkpoint: Path, trained: Path, tmp_path: Path) -> None:
    other = write_random_checkpoint(tmp_path / "other", "tiny", seed=1)
    with pytest.raises(AdapterError, match="belongs to other weights.*trained on .*tiny"):
        smolvlm.load(other, adapter=trained)
    narrow = replace(TINY, text=replace(TINY.text, hidden_size=64))
    with pytest.raises(AdapterError, match=r"does not fit.*trained on .*tiny"):
        smolvlm.load(write_random_checkpoint(tmp_path / "narrow", narrow), adapter=trained)


def test_a_fingerprint_outlives_rounding_but_not_training(tiny_checkpoint: Path, tmp_path: Path) -> None:
    def mark(folder: Path) -> str:
        with CheckpointReader(folder) as reader:
            return fingerprint(reader, load_configs(folder)[0])

    half = write_random_checkpoint(tmp_path / "half", "tiny", dtype="bfloat16")
    assert mark(half) == mark(tiny_checkpoint)
    assert mark(write_random_checkpoint(tmp_path / "other", "tiny", seed=1)) != mark(tiny_checkpoint)
    path = half / "model.safetensors"
    raw = bytearray(path.read_bytes())
    raw[-2:] = b"\x80\x3f"  # one value, the very last, becomes 1.0
    path.write_bytes(raw)
    assert mark(half) != mark(tiny_checkpoint)


def _config(change: dict[str, Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | change))

    return apply


def _truncate(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def _not_finite(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"\x00\x00\xc0\x7f")


def _pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shutil.rmtree, "no such file; an adapter's folder holds"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "cannot be read as JSON"),
        (_config({"peft_type": "IA3"}), "peft_type='IA3'; only LORA"),
        (_config({"use_dora": True}), "use_dora=True, and the weights disagree"),
        (_config({"layer_replication": [[0, 4]]}), "layer_replication is set"),
        (_config({"init_lora_weights": "pissa"}), "changes the base model itself"),
        (_config({"lora_alpha": "much"}), "lora_alpha='much'; expected a number"),
        (_config({"alpha_pattern": {"(a+)+$": 3}}), "is not a plain module path"),
        (_truncate, "truncated"),
        (_not_finite, "not finite"),
        (_pickle, "pickle files can run code"),
    ],
)
def test_a_bad_adapter_is_named(trained: Path, tmp_path: Path, spoil: Callable[[Path], None], message: str) -> None:
    folder = tmp_path / "adapter"
    shutil.copytree(trained, folder)
    spoil(folder)
    with pytest.raises(AdapterError, match=message) as error:
        Adapter(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("options", [{"method": "ia3"}, {"rank": 0}, {"alpha": 0}, {"dropout": 1.0}])
def test_options_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(AdapterError, match=next(iter(options))):
        AdapterOptions(**options)


def test_a_missing_library_names_the_extra(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(MissingExtraError, match=r"smolvlm\[train\]"):
        add_adapter(net(tiny_checkpoint), AdapterOptions(method="qlora"))
