"""The loss and its gradients against `transformers` on the same batch, and what the flags of the loop change."""

from __future__ import annotations

import math
from pathlib import Path

import oracle  # noqa: F401  (before transformers)
import pytest
import torch
from transformers import SmolVLMForConditionalGeneration as Reference

from helpers_train import picture_mixture
from smolvlm.errors import TrainingError
from smolvlm.nn.weights import load_model
from smolvlm.options.media import MediaOptions
from smolvlm.options.training import LoopOptions, TrainOptions
from smolvlm.processor import Processor
from smolvlm.train.batching import IGNORE, Batch
from smolvlm.train.checkpointing import checkpointed_layers
from smolvlm.train.conversation import ConversationEncoder
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.mixture import Mixture
from smolvlm.train.mixture_batches import MixtureBatches
from smolvlm.train.objective import SFTObjective
from smolvlm.train.optimizer import Optimizer, decays, part_of, schedule_factor


@pytest.fixture(scope="module")
def batch(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Batch:
    """Four padded rows: pictures in some, one only text."""
    mixture = Mixture.from_file(picture_mixture(tmp_path_factory.mktemp("data") / "m", 4), seed=1)
    encoder = ConversationEncoder(Processor.from_folder(tiny_checkpoint), 200, MediaOptions(detail="low"))
    drawn = next(MixtureBatches(mixture, encoder, batch_size=6, packing=False).draw(None, 0, 1))
    assert drawn.batch.pixel_values is not None
    assert len(drawn.batch.pixel_values) == 4
    return drawn.batch


@pytest.fixture
def graph(tiny_checkpoint: Path) -> TrainingGraph:
    return TrainingGraph(load_model(tiny_checkpoint, Processor.from_folder(tiny_checkpoint).model))


def test_loss_and_gradients_equal_the_reference(tiny_checkpoint: Path, graph: TrainingGraph, batch: Batch) -> None:
    """Row by row through the reference, each with its own pixels, weighed by its learned tokens."""
    reference = Reference.from_pretrained(tiny_checkpoint, dtype=torch.float32)
    token = graph.net.config.image_token_id
    pixels, total = list(batch.pixel_values if batch.pixel_values is not None else []), 0.0
    for row, _, stop in batch.spans:
        ids, labels = batch.input_ids[row : row + 1, :stop], batch.labels[row : row + 1, :stop]
        tiles = int((ids == token).sum()) // graph.net.config.image_seq_len
        own = torch.stack([pixels.pop(0) for _ in range(tiles)])[None] if tiles else None
        loss = reference(input_ids=ids, pixel_values=own, labels=labels).loss
        share = int((labels != IGNORE).sum()) / batch.weight_tokens
        (loss * share).backward()
        total += float(loss.detach()) * share
    output = SFTObjective()(graph, batch)
    output.loss.backward()
    assert abs(float(output.loss.detach()) - total) < 1e-5
    assert output.weight_tokens == batch.weight_tokens == int((batch.labels != IGNORE).sum())
    theirs = dict(reference.named_parameters())
    for name, parameter in graph.net.named_parameters():
        assert parameter.grad is not None, name
        expected = theirs[name].grad
        # The bias of a key shifts all scores of a query alike: its gradient is 0 but for rounding, some 1e-11.
        assert expected.norm() > (0 if "k_proj.bias" in name else 1e-6), name
        assert (parameter.grad - expected).norm() < 1e-4 * expected.norm() + 1e-9, name


def test_gradient_checkpointing_changes_no_gradient(graph: TrainingGraph, batch: Batch) -> None:
    graph.train()
    SFTObjective()(graph, batch).loss.backward()
    plain = {name: p.grad.clone() for name, p in graph.named_parameters() if p.grad is not None}
    graph.zero_grad()
    layer = graph.net.model.text_model.layers[0]
    calls = []
    hook = layer.mlp.register_forward_pre_hook(lambda *_: calls.append(1))
    with checkpointed_layers(graph):
        SFTObjective()(graph, batch).loss.backward()
    hook.remove()
    assert len(calls) == 2  # forward, and again on the way back
    assert "forward" not in vars(layer)
    for name, parameter in graph.named_parameters():
        assert torch.equal(parameter.grad, plain[name]), name


def test_neftune_noise_has_the_stated_strength_and_only_while_training(graph: TrainingGraph, batch: Batch) -> None:
    noisy = TrainingGraph(graph.net, neftune_alpha=5.0)
    with torch.no_grad():
        assert torch.equal(noisy.eval()(batch).logits, graph.eval()(batch).logits)
        assert not torch.allclose(noisy.train()(batch).logits, graph.train()(batch).logits)
        noise = noisy._noise(torch.zeros(*batch.input_ids.shape, 128), batch)
    for row, _, stop in batch.spans:
        bound = 5.0 / math.sqrt(stop * 128)
        assert noise[row].abs().max() <= bound
        assert noise[row].abs().max() > 0.99 * bound


def test_a_blank_look_changes_nothing_but_reaches_every_parameter(graph: TrainingGraph, batch: Batch) -> None:
    text_only = Batch(
        torch.tensor([[1, 5, 6]]),
        torch.tensor([[IGNORE, 5, 6]]),
        torch.arange(3)[None],
        torch.ones(1, 3, dtype=torch.int64),
        None,
        ((0, 0, 3),),
        3,
        2,
    )
    expected = SFTObjective()(graph, text_only).loss
    looking = TrainingGraph(graph.net, always_look=True)
    loss = SFTObjective()(looking, text_only).loss
    assert torch.equal(loss, expected)
    loss.backward()
    assert all(p.grad is not None for p in looking.parameters())


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("net.model.vision_model.encoder.layers.0.mlp.fc1.weight", "vision"),
        ("net.model.connector.modality_projection.proj.weight", "connector"),
        ("net.model.text_model.layers.1.mlp.up_proj.weight", "text"),
        ("net.lm_head.weight", "text"),
        ("net.model.text_model.embed_tokens.weight", "text"),
        ("projection.weight", "text"),
    ],
)
def test_parts_by_name(name: str, part: str) -> None:
    assert part_of(name) == part


def test_only_matrices_of_products_decay(graph: TrainingGraph) -> None:
    decayed = {name for name, p in graph.named_parameters() if decays(name, p)}
    assert "net.lm_head.weight" in decayed
    assert not any("norm" in n or n.endswith("bias") or "embed" in n for n in decayed)
    products = {f"net.{name}.weight" for name, m in graph.net.named_modules() if isinstance(m, torch.nn.Linear)}
    assert decayed == products


def test_the_schedule_by_hand(tmp_path: Path) -> None:
    cosine = LoopOptions(out=tmp_path, warmup_ratio=0.1)
    for progress, expected in ((0.0, 0.0), (0.05, 0.5), (0.1, 1.0), (0.55, 0.5), (0.325, 0.5 * (1 + math.sqrt(0.5))), (1.0, 0.0)):
        assert schedule_factor(progress, cosine) == pytest.approx(expected, abs=1e-12)
    assert schedule_factor(0.9, LoopOptions(out=tmp_path, schedule="constant")) == 1.0
    assert schedule_factor(0.0, LoopOptions(out=tmp_path, warmup_ratio=0.0)) == 1.0


def test_rates_and_decay_are_those_of_adamw_by_hand(graph: TrainingGraph, tmp_path: Path) -> None:
    """The first AdamW step moves each element by lr * g / (|g| + eps): the rate of its part, after its decay."""
    options = LoopOptions(out=tmp_path, lr_vision=0.0, lr_connector=3e-2, lr_text=1e-2, weight_decay=0.1, max_grad_norm=0.0)
    Optimizer.freeze(graph, options)
    before = {name: p.detach().clone() for name, p in graph.named_parameters()}
    optimizer = Optimizer(graph, options)
    generator = torch.Generator().manual_seed(0)
    for parameter in optimizer.parameters.values():
        parameter.grad = torch.randn(parameter.shape, generator=generator).sign()
    signs = {name: p.grad.clone() for name, p in optimizer.parameters.items()}
    norm = optimizer.step(0.5)
    assert norm == pytest.approx(math.sqrt(sum(s.numel() for s in signs.values())), rel=1e-5)
    for name, parameter in graph.named_parameters():
        if part_of(name) == "vision":
            assert torch.equal(parameter, before[name]), name
            continue
        rate = 0.5 * (3e-2 if part_of(name) == "connector" else 1e-2)
        kept = 1 - rate * 0.1 if decays(name, parameter) else 1.0
        assert torch.allclose(parameter, before[name] * kept - rate * signs[name], atol=1e-6), name


def test_clipping_bounds_the_norm_and_masters_collect_small_steps(graph: TrainingGraph, tmp_path: Path) -> None:
    masters = {name: p.detach().clone() for name, p in graph.named_parameters()}
    graph.to(torch.bfloat16)
    options = LoopOptions(out=tmp_path, lr_vision=1e-6, lr_connector=1e-6, lr_text=1e-6, max_grad_norm=1.0, precision="bfloat16")
    optimizer = Optimizer(graph, options, {name: tensor.clone() for name, tensor in masters.items()})
    assert optimizer.masters is not None
    for _ in range(2):
        for parameter in optimizer.parameters.values():
            parameter.grad = torch.ones_like(parameter)
        assert optimizer.step(1.0) > 100
    name = "net.model.text_model.norm.weight"  # about one: bfloat16 has steps of 0.004 there, far above 2e-6
    assert optimizer.masters[name].dtype == torch.float32
    assert torch.allclose(optimizer.masters[name], masters[name] - 2e-6, atol=2e-7, rtol=0)
    moment = optimizer.adamw.state[optimizer.masters[name]]["exp_avg"]
    count = sum(p.numel() for p in optimizer.parameters.values())
    assert torch.allclose(moment, torch.full_like(moment, (1 - 0.9**2) / math.sqrt(count)), rtol=1e-3)
    assert torch.equal(graph.get_parameter(name), optimizer.masters[name].bfloat16())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": 0}, "steps=0"),
        ({"lr_text": -1.0}, "lr_text=-1.0"),
        ({"lr_text": math.nan}, "lr_text=nan"),
        ({"warmup_ratio": 2.0}, "from 0 to 1"),
        ({"precision": "int8"}, "expected one of float32, autocast, bfloat16"),
        ({"schedule": "linear"}, "expected one of cosine"),
        ({"keep": 0}, "keep=0"),
        ({"epochs": 1, "steps": 2}, "exclude each other"),
        ({"batch_size": True}, "batch_size=True"),
        ({"fsdp": True, "precision": "bfloat16"}, "cannot be combined"),
    ],
)
def test_options_out_of_range_are_named(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        TrainOptions(out=tmp_path, model="m", mixture=Path("mix.yaml"), **changes)  # type: ignore[arg-type]


def test_freezing_everything_is_refused(graph: TrainingGraph, tmp_path: Path) -> None:
    options = LoopOptions(out=tmp_path, lr_vision=0.0, lr_connector=0.0, lr_text=0.0)
    Optimizer.freeze(graph, options)
    with pytest.raises(TrainingError, match="nothing would be trained"):
        Optimizer(graph, options)
