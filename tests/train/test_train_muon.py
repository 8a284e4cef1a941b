"""Muon beside AdamW: which parameters it steps, what its step is, and that a saved run goes on with the same step."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from smolvlm.config import ModelConfig, TextConfig, VisionConfig
from smolvlm.errors import TrainingError
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.options.training import LoopOptions
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.optimizer import Optimizer
from smolvlm.train.state import TrainerState, latest_state, load_tensors, save_state

# One layer a part, written out: what Muon steps is these matrices and no other parameter.
_ATTENTION = ("q_proj", "k_proj", "v_proj")
MATRICES = {
    *(f"net.model.text_model.layers.0.self_attn.{name}.weight" for name in (*_ATTENTION, "o_proj")),
    *(f"net.model.text_model.layers.0.mlp.{name}.weight" for name in ("gate_proj", "up_proj", "down_proj")),
    *(f"net.model.vision_model.encoder.layers.0.self_attn.{name}.weight" for name in (*_ATTENTION, "out_proj")),
    *(f"net.model.vision_model.encoder.layers.0.mlp.{name}.weight" for name in ("fc1", "fc2")),
}
OTHERS = {  # the two-dimensional ones that a test by `ndim` alone would take as well
    "net.model.text_model.embed_tokens.weight",
    "net.model.connector.modality_projection.proj.weight",
    "net.model.vision_model.embeddings.position_embedding.weight",
    "net.lm_head.weight",
}


@pytest.fixture
def graph() -> TrainingGraph:
    torch.manual_seed(0)
    config = ModelConfig(
        text=TextConfig(
            hidden_size=32,
            intermediate_size=48,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            head_dim=16,
            vocab_size=60,
            eos_token_id=59,
        ),
        vision=VisionConfig(hidden_size=32, intermediate_size=40, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=8),
        scale_factor=2,
        image_token_id=58,
        eos_token_ids=(59,),
    )
    return TrainingGraph(SmolVLMForConditionalGeneration(config))


def options(out: Path, **changes: float | str) -> LoopOptions:
    given: dict[str, float | str] = {
        "lr_vision": 1e-2,
        "lr_connector": 1e-2,
        "lr_text": 1e-2,
        "lr_muon": 0.02,
        "max_grad_norm": 0.0,
        **changes,
    }
    return LoopOptions(out=out, **given)  # type: ignore[arg-type]


def owners(optimizer: Optimizer) -> tuple[set[str], set[str]]:
    """The names that Muon and AdamW step."""
    found = []
    for owner in (optimizer.muon, optimizer.adamw):
        owned = [] if owner is None else [id(p) for group in owner.param_groups for p in group["params"]]
        assert len(owned) == len(set(owned))
        found.append({name for name, p in optimizer.stepped.items() if id(p) in owned})
        assert len(found[-1]) == len(owned), "it steps something that is not trained"
    return found[0], found[1]


def give_gradients(optimizer: Optimizer, seed: int) -> dict[str, torch.Tensor]:
    """Gradients that depend on the seed alone."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: torch.randn(p.shape, generator=generator) for name, p in optimizer.parameters.items()}
    for name, parameter in optimizer.parameters.items():
        parameter.grad = drawn[name].to(parameter.dtype)
    return drawn


@pytest.mark.parametrize("masters", [False, True], ids=["parameters", "masters"])
def test_muon_has_the_layers_matrices_and_adamw_the_rest(graph: TrainingGraph, tmp_path: Path, masters: bool) -> None:
    kept = {name: p.detach().clone() for name, p in graph.named_parameters()} if masters else None
    optimizer = Optimizer(graph, options(tmp_path), kept)
    by_muon, by_adamw = owners(optimizer)
    assert by_muon == MATRICES
    assert by_adamw >= OTHERS
    assert by_muon | by_adamw == {name for name, _ in graph.named_parameters()}
    assert not by_muon & by_adamw
    matrices = {name for name, p in graph.named_parameters() if p.ndim == 2}
    assert matrices == MATRICES | OTHERS  # nothing of the kind was overlooked above


def test_without_a_rate_there_is_no_muon_and_frozen_parts_are_nobodys(graph: TrainingGraph, tmp_path: Path) -> None:
    plain = Optimizer(graph, options(tmp_path, lr_muon=0.0))
    assert plain.muon is None
    assert owners(plain)[1] == {name for name, _ in graph.named_parameters()}
    frozen = options(tmp_path, lr_vision=0.0)
    Optimizer.freeze(graph, frozen)
    by_muon, by_adamw = owners(Optimizer(graph, frozen))
    assert by_muon == {name for name in MATRICES if ".text_model." in name}
    assert not any("vision_model" in name for name in by_adamw)


def test_the_first_step_is_along_the_orthogonal_factor(graph: TrainingGraph, tmp_path: Path) -> None:
    """Muon's step is, nearly, U V^T of the gradient's singular value decomposition, at the rate times the schedule's
    factor and the root of rows / columns where that is above 1; after the decay, which takes lr * decay of the weight.

    Nearly: five Newton-Schulz iterations in bfloat16 leave singular values between about 0.7 and 1.2 (Jordan et al.).
    """
    optimizer = Optimizer(graph, options(tmp_path, weight_decay=0.3))
    before = {name: p.detach().clone() for name, p in graph.named_parameters()}
    gradients = give_gradients(optimizer, seed=1)
    optimizer.step(0.5)
    rate = 0.5 * 0.02
    for name in sorted(MATRICES):
        after = graph.get_parameter(name).detach()
        step = (before[name] * (1 - rate * 0.3) - after).double() / rate
        rows, columns = step.shape
        step /= math.sqrt(max(1.0, rows / columns))
        u, _, vt = torch.linalg.svd(gradients[name].double(), full_matrices=False)
        assert torch.linalg.svdvals(step).min() > 0.5, name
        assert torch.linalg.svdvals(step).max() < 1.35, name
        assert (step * (u @ vt)).sum() / (step.norm() * math.sqrt(min(rows, columns))) > 0.97, name
    name = "net.model.connector.modality_projection.proj.weight"  # AdamW's first step: lr * sign, after the decay
    rate = 0.5 * 1e-2
    expected = before[name] * (1 - rate * 0.3) - rate * gradients[name].sign()
    torch.testing.assert_close(graph.get_parameter(name).detach(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_saved_run_goes_on_with_the_same_step(graph: TrainingGraph, tmp_path: Path, precision: str) -> None:
    """Three steps, a save on disk, a fourth step; from the save in a fresh graph, the fourth step is the same to the bit."""

    def start(out: TrainingGraph) -> Optimizer:
        kept = None
        if precision == "bfloat16":
            kept = {name: p.detach().float().clone() for name, p in out.named_parameters()}
            out.to(torch.bfloat16)
        return Optimizer(out, options(tmp_path, precision=precision), kept)

    config = graph.net.config
    optimizer = start(graph)
    for seed in range(3):
        give_gradients(optimizer, seed)
        optimizer.step(1.0)
    save_state(tmp_path, TrainerState(3, 0.5, []), optimizer.tensors())
    give_gradients(optimizer, 3)
    optimizer.step(0.7)
    expected = {name: p.detach().clone() for name, p in optimizer.stepped.items()}

    saved = latest_state(tmp_path)
    assert saved is not None
    tensors = load_tensors(saved)
    assert {n.partition(".")[2] for n in tensors if n.startswith("momentum_buffer.")} == MATRICES
    assert not any(n.startswith("exp_avg") and n.partition(".")[2] in MATRICES for n in tensors)
    torch.manual_seed(99)  # other first weights: all must come from the save
    again = TrainingGraph(SmolVLMForConditionalGeneration(config))
    resumed = start(again)
    resumed.load(tensors, "the save")
    give_gradients(resumed, 3)
    resumed.step(0.7)
    for name, tensor in resumed.stepped.items():
        assert torch.equal(tensor, expected[name]), name
        assert torch.equal(again.get_parameter(name), graph.get_parameter(name)), name

    # With the weights alone, momentum forgotten, the step is another one: what is compared above can tell.
    forgetful = start(again)
    forgetful.load({n: t if n.startswith("weights.") else torch.zeros_like(t) for n, t in tensors.items()}, "the save")
    give_gradients(forgetful, 3)
    forgetful.step(0.7)
    assert all(not torch.equal(forgetful.stepped[name], expected[name]) for name in MATRICES)


def test_a_save_of_adamw_is_not_taken_for_one_of_muon(graph: TrainingGraph, tmp_path: Path) -> None:
    plain = Optimizer(graph, options(tmp_path, lr_muon=0.0))
    give_gradients(plain, 0)
    plain.step(1.0)
    tensors = plain.tensors()
    with pytest.raises(TrainingError, match="the save was saved from other parameters"):
        Optimizer(graph, options(tmp_path)).load(tensors, "the save")


@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf])
def test_a_rate_out_of_range_is_named(tmp_path: Path, rate: float) -> None:
    with pytest.raises(TrainingError, match="lr_muon="):
        options(tmp_path, lr_muon=rate)
