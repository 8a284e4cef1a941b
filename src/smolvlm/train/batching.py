"""What the loop eats: `Batch`, how examples become one, and the protocol of anything that hands batches out in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smolvlm.config import ProcessorConfig
from smolvlm.media.pixels import normalize

IGNORE = -100  # the label of a token that is not learned, as everywhere in the field

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Example:
    """One tokenized conversation.

    input_ids, labels: int64 (seq,); `labels[i]` is `input_ids[i]` where token i is learned, else IGNORE, so the
    position that predicts it is i - 1. tiles: uint8 (tiles, side, side, 3), in the order of their image tokens.
    """

    input_ids: IntArray
    labels: IntArray
    tiles: npt.NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.input_ids)

    @property
    def label_count(self) -> int:
        """Learned tokens. The first token has no predecessor to predict it and never counts."""
        return int((self.labels[1:] != IGNORE).sum())


@dataclass(frozen=True, eq=False)
class Batch:
    """Rows of one or several examples each, padded on the right. Tensors are on one device.

    input_ids, labels, positions, segment_ids: int64 (rows, seq). Positions restart with each example; segment ids
    count a row's examples from 1 and are 0 on padding; labels are IGNORE where nothing is learned (also on padding).
    pixel_values: float32 (tiles, 3, side, side) of all rows in order, or None. spans: (row, start, stop) of each
    example, known on the host so that nothing waits for a device. tokens: without padding. weight_tokens: learned
    tokens, what the batch counts for when losses are averaged over accumulation and processes.
    """

    input_ids: Tensor
    labels: Tensor
    positions: Tensor
    segment_ids: Tensor
    pixel_values: Tensor | None
    spans: tuple[tuple[int, int, int], ...]
    tokens: int
    weight_tokens: int

    @property
    def packed(self) -> bool:
        """True where a row holds more than one example, so that attention must not reach across."""
        return len(self.spans) > len(self.input_ids)

    def predicting(self) -> Tensor:
        """bool (rows, seq): the positions whose hidden state predicts a learned token, the one right after them."""
        mask = torch.zeros_like(self.labels, dtype=torch.bool)
        mask[:, :-1] = self.labels[:, 1:] != IGNORE
        return mask

    def targets(self) -> Tensor:
        """int64 (weight_tokens,): the tokens to predict, in the order of `predicting()`'s true positions."""
        following = self.labels[:, 1:]
        return following[following != IGNORE]

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True)
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), Tensor)
        }
        return dataclasses.replace(self, **moved)


def collate(rows: Sequence[Sequence[Example]], config: ProcessorConfig, pad_token_id: int) -> Batch:
    """Rows of examples -> a Batch, each row as long as the longest. Rows of one example each are plain padding."""
    assert rows, "a batch needs a row"
    assert all(rows), "a row needs an example"
    seq = max(sum(len(example) for example in row) for row in rows)
    shape = (len(rows), seq)
    input_ids, labels = np.full(shape, pad_token_id, np.int64), np.full(shape, IGNORE, np.int64)
    positions, segment_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    spans: list[tuple[int, int, int]] = []
    for r, row in enumerate(rows):
        start = 0
        for number, example in enumerate(row, start=1):
            stop = start + len(example)
            input_ids[r, start:stop] = example.input_ids
            labels[r, start + 1 : stop] = example.labels[1:]
            positions[r, start:stop] = np.arange(len(example))
            segment_ids[r, start:stop] = number
            spans.append((r, start, stop))
            start = stop
    tiles = [example.tiles for row in rows for example in row if len(example.tiles)]
    pixel_values = torch.from_numpy(normalize(np.concatenate(tiles), config)) if tiles else None
    return Batch(
        torch.from_numpy(input_ids),
        torch.from_numpy(labels),
        torch.from_numpy(positions),
        torch.from_numpy(segment_ids),
        pixel_values,
        tuple(spans),
        tokens=int((segment_ids > 0).sum()),
        weight_tokens=int((labels != IGNORE).sum()),
    )


class AnyBatch(Protocol):
    """What the loop needs of a batch; an objective may bring its own kind (DPO: pairs)."""

    @property
    def tokens(self) -> int:
        """Real tokens, for tokens/s."""

    @property
    def weight_tokens(self) -> int:
        """What the batch counts for in the mean over accumulation and processes: learned tokens, or pairs."""

    def to(self, device: torch.device | str) -> Any:
        """The batch on `device`."""


BatchT = TypeVar("BatchT", bound=AnyBatch)


@dataclass(frozen=True, eq=False)
class Drawn(Generic[BatchT]):
    """A batch and where the source stands after it.

    state: JSON-able; `source.draw(state, ...)` goes on with the very next batch. progress: share of all the data
    given out so far, 0..1, which ends at 1.0; None for an endless source (then `options.steps` ends the run).
    """

    batch: BatchT
    state: Mapping[str, Any] = field(default_factory=dict)
    progress: float | None = None


class BatchSource(Protocol[BatchT]):
    """Hands out batches in an order that depends on its options alone. Holds no position: `state` does."""

    def draw(self, state: Mapping[str, Any] | None, rank: int, world: int) -> Iterator[Drawn[BatchT]]:
        """Batches of process `rank` of `world`, from the beginning (None) or right after the batch of `state`."""

    def report(self, state: Mapping[str, Any]) -> list[str]:
        """Sentences for the end of the run: what was skipped or cut, and why."""
