"""Packing and batches: the same loss and gradients as padding, no looking across, and an order that can be resumed."""

from __future__ import annotations

import functools
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers_train import picture_mixture, record, text_record, write_mixture, write_pictures
from smolvlm.errors import MixtureError
from smolvlm.nn.weights import load_model
from smolvlm.options.media import MediaOptions
from smolvlm.processor import Processor
from smolvlm.train import packing
from smolvlm.train.batching import IGNORE, Example, collate
from smolvlm.train.conversation import ConversationEncoder
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.mixture import Mixture
from smolvlm.train.mixture_batches import MixtureBatches
from smolvlm.train.objective import SFTObjective

processor_of = functools.cache(Processor.from_folder)  # read once: the tokenizer's file has 3.5 MB


def examples(processor: Processor, lengths: list[int], tiles: int = 1, seed: int = 0) -> list[Example]:
    """Random ids, the first example with a picture; the second half of each is learned."""
    rng = np.random.default_rng(seed)
    made = []
    for number, length in enumerate(lengths):
        count = tiles if number == 0 else 0
        ids = rng.integers(3, 40_000, length)
        ids[2 : 2 + count * processor.config.image_seq_len] = processor.model.image_token_id
        labels = np.where(np.arange(length) < length // 2, IGNORE, ids)
        side = processor.config.tile_size
        made.append(Example(ids, labels, rng.integers(0, 255, (count, side, side, 3), dtype=np.uint8)))
    return made


def loss_and_gradients(graph: TrainingGraph, rows: list[list[Example]], config: Any) -> tuple[float, dict[str, torch.Tensor]]:
    graph.zero_grad()
    output = SFTObjective()(graph, collate(rows, config, 2))
    output.loss.backward()
    return float(output.loss.detach()), {n: p.grad.clone() for n, p in graph.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("masked_up_to", [1024, 0], ids=["masked", "by span"])
def test_packing_gives_the_loss_and_gradients_of_padding(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch, masked_up_to: int) -> None:
    monkeypatch.setattr(packing, "_MASKED_UP_TO", masked_up_to)
    processor = processor_of(tiny_checkpoint)
    graph = TrainingGraph(load_model(tiny_checkpoint, processor.model))
    four = examples(processor, [50, 23, 31, 12])
    padded, padded_gradients = loss_and_gradients(graph, [[e] for e in four], processor.config)
    packed, packed_gradients = loss_and_gradients(graph, [four[:3], four[3:]], processor.config)
    assert abs(padded - packed) < 1e-5  # asked for: 1e-4
    assert padded_gradients.keys() == packed_gradients.keys() == dict(graph.named_parameters()).keys()
    for name, gradient in padded_gradients.items():
        assert (gradient - packed_gradients[name]).abs().max() < 1e-5 * gradient.abs().max() + 1e-7, name


def test_an_example_never_sees_its_neighbour(tiny_checkpoint: Path) -> None:
    processor = processor_of(tiny_checkpoint)
    graph = TrainingGraph(load_model(tiny_checkpoint, processor.model))
    first, second, other = examples(processor, [30, 20, 30], tiles=0)
    with torch.no_grad():
        beside_first = graph(collate([[first, second]], processor.config, 2)).hidden_states[0, 30:]
        beside_other = graph(collate([[other, second]], processor.config, 2)).hidden_states[0, 30:]
        alone = graph(collate([[second]], processor.config, 2)).hidden_states[0]
    assert torch.equal(beside_first, beside_other)
    assert (beside_first - alone).abs().max() < 1e-5


def test_collate_by_hand(tiny_checkpoint: Path) -> None:
    processor = processor_of(tiny_checkpoint)
    none = np.empty((0, 64, 64, 3), np.uint8)
    a = Example(np.array([1, 5, 6]), np.array([IGNORE, IGNORE, 6]), none)
    b = Example(np.array([1, 7]), np.array([1, 7]), none)  # the label of a first token has no predecessor
    batch = collate([[a, b], [b]], processor.config, 2)
    assert batch.input_ids.tolist() == [[1, 5, 6, 1, 7], [1, 7, 2, 2, 2]]
    assert batch.labels.tolist() == [[IGNORE, IGNORE, 6, IGNORE, 7], [IGNORE, 7, IGNORE, IGNORE, IGNORE]]
    assert batch.positions.tolist() == [[0, 1, 2, 0, 1], [0, 1, 0, 0, 0]]
    assert batch.segment_ids.tolist() == [[1, 1, 1, 2, 2], [1, 1, 0, 0, 0]]
    assert batch.spans == ((0, 0, 3), (0, 3, 5), (1, 0, 2))
    assert (batch.tokens, batch.weight_tokens, batch.packed) == (7, 3, True)
    assert batch.predicting().nonzero().tolist() == [[0, 1], [0, 3], [1, 0]]
    assert batch.targets().tolist() == [6, 7, 7]


def source(checkpoint: Path, mixture: Path, **options: Any) -> MixtureBatches:
    encoder = ConversationEncoder(processor_of(checkpoint), options.pop("seq_len", 120), MediaOptions(detail="low"))
    return MixtureBatches(Mixture.from_file(mixture), encoder, **{"batch_size": 2, "epochs": 2, **options})


def told(batch: Any) -> tuple[Any, ...]:
    pixels = None if batch.pixel_values is None else float(batch.pixel_values.double().sum())
    return batch.input_ids.tolist(), batch.labels.tolist(), batch.segment_ids.tolist(), pixels


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("packed", [True, False])
def test_a_source_goes_on_with_the_very_next_batch(tiny_checkpoint: Path, tmp_path: Path, packed: bool, workers: int) -> None:
    mixture = picture_mixture(tmp_path / "m")
    whole = list(source(tiny_checkpoint, mixture, packing=packed).draw(None, 0, 1))
    assert whole[-1].progress == 1.0
    for at in (1, len(whole) // 2, len(whole) - 1):
        state = json.loads(json.dumps(whole[at - 1].state))
        rest = list(source(tiny_checkpoint, mixture, packing=packed, workers=workers).draw(state, 0, 1))
        assert [told(d.batch) for d in rest] == [told(d.batch) for d in whole[at:]]
        assert rest[-1].state == whole[-1].state


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_each_epoch_has_each_record_once_over_all_processes(tiny_checkpoint: Path, tmp_path: Path, packed: bool, world: int) -> None:
    mixture = picture_mixture(tmp_path / "m")
    drawn = [list(source(tiny_checkpoint, mixture, packing=packed, epochs=1).draw(None, r, world)) for r in range(world)]
    counted = sum(len(d.batch.spans) for d in itertools.chain(*drawn))
    assert counted == 12
    seen = [tuple(d.batch.input_ids[row, a:b].tolist()) for d in itertools.chain(*drawn) for row, a, b in d.batch.spans]
    assert len(set(seen)) == 12
    assert all(part[-1].progress == 1.0 for part in drawn)
    if packed:
        assert all(d.batch.input_ids.shape[1] <= 120 for d in itertools.chain(*drawn))
        assert any(d.batch.packed for d in itertools.chain(*drawn))


def test_unreadable_pictures_are_counted_and_listed(tiny_checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    write_pictures(folder, 3)
    mixture = write_mixture(folder, [record(n) for n in range(4)] + [text_record("long " * 300)] + [text_record("a. " * 30, 3)])
    batches = source(tiny_checkpoint, mixture, epochs=1, seq_len=200)
    last = list(batches.draw(None, 0, 1))[-1]
    lines = batches.report(last.state)
    assert lines[:4] == [
        "6 records read",
        "1 skipped because their media cannot be read",
        "1 skipped because their first answer ends beyond 200 tokens",
        "1 cut after the last answer that fits in 200 tokens",
    ]
    assert any("data, record 4 of data.jsonl" in line and "3.png" in line for line in lines[4:])


@pytest.mark.parametrize("broken", [1, 2])
def test_more_than_one_per_cent_unreadable_stops_the_run(tiny_checkpoint: Path, tmp_path: Path, broken: int) -> None:
    records = [record(n) for n in range(broken)] + [text_record()] * (150 - broken)  # no picture exists
    batches = source(tiny_checkpoint, write_mixture(tmp_path / "m", records), epochs=1)
    if broken == 1:
        assert len(list(batches.draw(None, 0, 1))) > 0
        return
    with pytest.raises(MixtureError, match=r"2 of \d+ records have media that cannot be read, more than 1%"):
        list(batches.draw(None, 0, 1))


def test_records_that_never_fit_end_an_endless_source(tiny_checkpoint: Path, tmp_path: Path) -> None:
    batches = source(tiny_checkpoint, write_mixture(tmp_path / "m", [text_record("long " * 300)]), epochs=None)
    with pytest.raises(MixtureError, match="none of the 1 records gives an example"):
        next(batches.draw(None, 0, 1))
