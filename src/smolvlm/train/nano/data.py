"""The stream of training batches: which samples, how many, of what length. Batch number n is the same in every run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch.utils.data import DataLoader, Dataset

from smolvlm.synth.clips import EVEN_SHARES, draw_clip
from smolvlm.synth.generate import GENERATORS
from smolvlm.synth.sample import SPLITS, Sample, Split
from smolvlm.synth.scenes import draw_counts
from smolvlm.synth.world import World
from smolvlm.synth.writing import draw_lines
from smolvlm.train.batching import Drawn
from smolvlm.train.nano.objective import NanoBatch, Stage, rows_to_batch
from smolvlm.train.nano.rows import Row, RowMaker

# Beside the benchmark's own generators: what is learned slowly is practised alone.
_GENERATORS = GENERATORS | {"lines": draw_lines, "counts": draw_counts}
_PREFETCHED = 4  # batches that a worker draws ahead
_CONVERSATIONS = 0.25  # share of the rows whose questions follow each other
_STREAM = 7  # sets these seeds apart from those of `synth.generate`, whose test split is the benchmark


@dataclass(frozen=True)
class Kind:
    """One kind of batch. `weight`: how often; `rows` a batch; `length`: tokens of a row beside those of its frames, of which
    it has at most `frame_count`; `first`: the task that is asked before the others, which fill what its answers leave."""

    generator: str
    weight: float
    rows: int
    length: int
    frame_count: int = 1
    first: str = ""


def mixture(stage: Stage, scale: float = 1.0) -> tuple[Kind, ...]:
    """What a stage learns from, each batch of about the same cost: a clip of six frames holds as many tokens as six
    pictures. `scale` multiplies the rows.

    The oracle needs dense truth; the tower sees single frames, and most of them full of letters: characters were the last
    thing that it learned (recall 0.42 where names had 0.92).
    """

    def rows(count: float) -> int:
        return max(1, round(count * scale))

    if stage == "tower":
        return (Kind("scene", 0.2, rows(64), 4), Kind("writing", 0.1, rows(64), 4), Kind("lines", 0.7, rows(64), 4))
    dense = (
        Kind("scene", 0.07, rows(48), 112),
        Kind("scene", 0.11, rows(48), 112, first="caption"),
        Kind("counts", 0.27, rows(64), 44),
        Kind("writing", 0.26, rows(64), 56),
        Kind("pair", 0.06, rows(36), 40, frame_count=2),
        *(Kind("clip", 0.24 / 7, rows(96 / n), 130 + 10 * n, frame_count=n) for n in range(2, 9)),
    )
    others = (
        Kind("lines", 0.09, rows(64), 4),
        Kind("part", 0.05, rows(48), 40),
        Kind("room", 0.02, rows(48), 64),
        Kind("room_clip", 0.03, rows(18), 130, frame_count=6),
        Kind("chart", 0.01, rows(48), 72),
        Kind("note", 0.01, rows(48), 40),
    )
    return dense if stage == "decoder" else dense + others


class BatchStream(Dataset[NanoBatch]):
    """`stream[n]` is batch n of an endless shuffle, drawn when asked for."""

    def __init__(self, maker: RowMaker, world: World, split: Split, kinds: tuple[Kind, ...], numbers: range) -> None:
        self.maker, self.world, self.split, self.kinds, self.numbers = maker, world, split, kinds, numbers

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, index: int) -> NanoBatch:
        rng = np.random.default_rng([_STREAM, SPLITS.index(self.split), self.numbers[index]])
        weights = np.array([kind.weight for kind in self.kinds])
        kind = self.kinds[int(rng.choice(len(self.kinds), p=weights / weights.sum()))]
        length = kind.length + kind.frame_count * (self.maker.config.image_seq_len + 4)
        rows: list[Row] = []
        tasks: list[tuple[str, ...]] = []
        for _ in range(kind.rows):
            sample = self._draw(rng, kind)
            talk = bool(rng.random() < _CONVERSATIONS)
            questions = sorted(sample.questions, key=lambda question: question.task != kind.first)
            rows.append(self.maker.row(sample, questions, length, conversation=talk))
            tasks.append(tuple(question.task for question in questions))
        return rows_to_batch(rows, tasks)

    def _draw(self, rng: np.random.Generator, kind: Kind) -> Sample:
        if kind.generator == "clip":
            return draw_clip(rng, self.world, self.split, kind.frame_count, EVEN_SHARES)
        return _GENERATORS[kind.generator](rng, self.world, self.split)


@dataclass(frozen=True, eq=False)
class NanoSource:
    """A `BatchSource` over the training split; `workers` processes draw ahead (0: drawn between the steps)."""

    maker: RowMaker
    world: World
    kinds: tuple[Kind, ...]
    steps: int
    workers: int = 1

    def draw(self, state: Mapping[str, Any] | None, rank: int, world: int) -> Iterator[Drawn[NanoBatch]]:
        first = rank if state is None else int(state["next"])
        numbers = range(first, self.steps * world, world)
        stream = BatchStream(self.maker, self.world, "train", self.kinds, numbers)
        loader = DataLoader(stream, batch_size=None, num_workers=self.workers, prefetch_factor=_PREFETCHED if self.workers else None)
        for number, batch in zip(numbers, loader, strict=True):
            yield Drawn(batch, {"next": number + world})

    def report(self, _state: Mapping[str, Any]) -> list[str]:
        return []
