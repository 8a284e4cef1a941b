"""A mixture's examples as batches: packed, in an order that a resumed run repeats exactly."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from smolvlm.config import ProcessorConfig
from smolvlm.train.batching import Batch, Drawn, Example, collate
from smolvlm.train.conversation import ConversationEncoder, Encoded
from smolvlm.train.mixture import Mixture
from smolvlm.train.reading import Counts, MixtureReader, Place, Reading

_LOOK_AHEAD = 16  # examples among which a row's next one is sought


class MixtureBatches:
    """The `BatchSource` of a mixture. epochs None: without end. packing: several examples share a row of `seq_len`.

    With several processes each takes every world-th record of the epoch's order.
    """

    def __init__(
        self,
        mixture: Mixture,
        encoder: ConversationEncoder,
        *,
        batch_size: int,
        epochs: int | None = 1,
        packing: bool = True,
        workers: int = 0,
    ) -> None:
        self.mixture, self.encoder = mixture, encoder
        self.batch_size, self.packing = batch_size, packing
        self.reader = MixtureReader(mixture, encoder, epochs, workers)

    @property
    def config(self) -> ProcessorConfig:
        return self.encoder.processor.config

    def draw(self, state: Mapping[str, Any] | None, rank: int, world: int) -> Iterator[Drawn[Batch]]:
        """See `BatchSource`. State: the next place, the places whose examples wait for a row, and the counts."""
        reading = Reading(self.reader, state, rank, world)
        waiting: deque[tuple[Place, Example]] = deque()
        places = iter([(int(e), int(p)) for e, p in state["waiting"]] if state else [])
        for place, outcome in self.reader.outcomes(places):
            assert isinstance(outcome, Encoded), "only examples wait"
            waiting.append((place, outcome.example))
        while True:
            rows: list[list[Example]] = []
            while len(rows) < self.batch_size:
                while not reading.ended and len(waiting) < (_LOOK_AHEAD if self.packing else 1):
                    if (found := reading.next_example()) is not None:
                        waiting.append((found[0], found[1].example))
                if not waiting:
                    break
                rows.append(self._row(waiting))
            if not rows:
                return
            saved = {**reading.state(), "waiting": [list(place) for place, _ in waiting]}
            batch = collate(rows, self.config, self.encoder.processor.model.text.pad_token_id)
            yield Drawn(batch, saved, reading.progress(len(waiting)))

    def report(self, state: Mapping[str, Any]) -> list[str]:
        """How many records were skipped or cut on this process, and the first hundred by name."""
        counts = Counts(**state.get("counts", {}))
        lines = [f"{counts.read} records read"]
        if counts.unreadable:
            lines.append(f"{counts.unreadable} skipped because their media cannot be read")
        if counts.too_long:
            lines.append(f"{counts.too_long} skipped because their first answer ends beyond {self.encoder.seq_len} tokens")
        if counts.cut:
            lines.append(f"{counts.cut} cut after the last answer that fits in {self.encoder.seq_len} tokens")
        return [*lines, *counts.listed]

    def _row(self, waiting: deque[tuple[Place, Example]]) -> list[Example]:
        """Take the oldest example that waits and, when packing, each further one that fits beside it."""
        _, first = waiting.popleft()
        row, room = [first], self.encoder.seq_len - len(first)
        if self.packing:
            for item in list(waiting):
                if len(item[1]) <= room:
                    waiting.remove(item)
                    row.append(item[1])
                    room -= len(item[1])
        return row
