"""A mixture's records as batches: read ahead by threads, packed, in an order that a resumed run repeats exactly."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from smolvlm.config import ProcessorConfig
from smolvlm.errors import MixtureError
from smolvlm.train.batching import Batch, Drawn, Example, collate
from smolvlm.train.conversation import ConversationEncoder, Encoded, Skipped
from smolvlm.train.mixture import Mixture

_LOOK_AHEAD = 16  # examples among which a row's next one is sought
_LISTED = 100  # skipped records that the state names; all are counted
_CHECK_FROM, _MAX_UNREADABLE = 100, 0.01

Place = tuple[int, int]  # (epoch, position in the epoch's order)


@dataclass
class _Counts:
    """What became of the records so far. JSON-able by `vars`."""

    read: int = 0
    unreadable: int = 0
    too_long: int = 0
    cut: int = 0
    listed: list[str] = field(default_factory=list)

    def add(self, outcome: Encoded | Skipped) -> None:
        self.read += 1
        if isinstance(outcome, Encoded):
            self.cut += outcome.cut
            return
        if outcome.kind == "unreadable":
            self.unreadable += 1
        else:
            self.too_long += 1
        if len(self.listed) < _LISTED:
            self.listed.append(outcome.reason)
        if self.read >= _CHECK_FROM and self.unreadable > _MAX_UNREADABLE * self.read:
            raise MixtureError(f"{self.unreadable} of {self.read} records have media that cannot be read, more than "
                               f"{_MAX_UNREADABLE:.0%}; the last: {outcome.reason}")  # fmt: skip


class MixtureBatches:
    """The `BatchSource` of a mixture. epochs None: without end. packing: several examples share a row of `seq_len`.

    With several processes each takes every world-th record of the epoch's order.
    """

    def __init__(self, mixture: Mixture, encoder: ConversationEncoder, *, batch_size: int, epochs: int | None = 1,
                 packing: bool = True, workers: int = 0) -> None:  # fmt: skip
        self.mixture, self.encoder = mixture, encoder
        self.batch_size, self.epochs, self.packing, self.workers = batch_size, epochs, packing, workers

    @property
    def config(self) -> ProcessorConfig:
        return self.encoder.processor.config

    def draw(self, state: Mapping[str, Any] | None, rank: int, world: int) -> Iterator[Drawn[Batch]]:
        """See `BatchSource`. State: the next place, the places whose examples wait for a row, and the counts."""
        state = state or {"next": [0, rank], "waiting": [], "counts": {}}
        counts = _Counts(**copy.deepcopy(state["counts"]))
        waiting: deque[tuple[Place, Example]] = deque()
        barren = 0  # records since the last example
        for place, outcome in self._outcomes(iter([(int(e), int(p)) for e, p in state["waiting"]])):
            assert isinstance(outcome, Encoded), "only examples wait"
            waiting.append((place, outcome.example))
        following: Place = (int(state["next"][0]), int(state["next"][1]))
        stream = self._outcomes(self._places(following, rank, world))
        ended = False
        while True:
            rows: list[list[Example]] = []
            while len(rows) < self.batch_size:
                while not ended and len(waiting) < (_LOOK_AHEAD if self.packing else 1):
                    item = next(stream, None)
                    if item is None:
                        ended = True
                        break
                    place, outcome = item
                    following = (place[0], place[1] + world)
                    counts.add(outcome)
                    barren = barren + 1
                    if isinstance(outcome, Encoded):
                        waiting.append((place, outcome.example))
                        barren = 0
                    if barren > len(self.mixture):
                        raise MixtureError(f"none of the {len(self.mixture)} records gives an example; {counts.listed[-1]}")
                if not waiting:
                    break
                rows.append(self._row(waiting))
            if not rows:
                return
            saved = {"next": list(following), "waiting": [list(place) for place, _ in waiting],
                     "counts": vars(counts) | {"listed": list(counts.listed)}}  # fmt: skip
            yield Drawn(collate(rows, self.config, self.encoder.processor.model.text.pad_token_id), saved,
                        self._progress(following, len(waiting), ended, world))  # fmt: skip

    def report(self, state: Mapping[str, Any]) -> list[str]:
        """How many records were skipped or cut on this process, and the first hundred by name."""
        counts = _Counts(**state.get("counts", {}))
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

    def _progress(self, following: Place, waiting: int, ended: bool, world: int) -> float | None:
        if self.epochs is None:
            return None
        if ended and not waiting:
            return 1.0
        size = len(self.mixture)
        done = following[0] * size + min(following[1], size) - waiting * world
        return min(max(done, 0) / (self.epochs * size), 1.0)

    def _places(self, start: Place, rank: int, world: int) -> Iterator[Place]:
        epoch, position = start
        while self.epochs is None or epoch < self.epochs:
            if rank >= len(self.mixture):
                return  # fewer records than processes: the loop says so
            yield from ((epoch, at) for at in range(position, len(self.mixture), world))
            epoch, position = epoch + 1, rank

    def _encode(self, number: int) -> Encoded | Skipped:
        return self.encoder(self.mixture.record(number))

    def _numbered(self, places: Iterator[Place]) -> Iterator[tuple[Place, int]]:
        """Each place with its record's number. An epoch's order is made once: it may hold millions."""
        for epoch, group in itertools.groupby(places, key=lambda place: place[0]):
            order = self.mixture.order(epoch)
            yield from ((place, int(order[place[1]])) for place in group)

    def _outcomes(self, places: Iterator[Place]) -> Iterator[tuple[Place, Encoded | Skipped]]:
        """The outcomes in order; with workers, a few are always being read ahead."""
        numbered = self._numbered(places)
        if not self.workers:
            for place, number in numbered:
                yield place, self._encode(number)
            return
        with ThreadPoolExecutor(self.workers, thread_name_prefix="smolvlm-data") as pool:
            ahead: deque[tuple[Place, Future[Encoded | Skipped]]] = deque()
            try:
                for item in itertools.chain(numbered, itertools.repeat(None)):
                    if item is not None:
                        ahead.append((item[0], pool.submit(self._encode, item[1])))
                        if len(ahead) < 2 * self.workers + 2:
                            continue
                    if not ahead:
                        return
                    first, future = ahead.popleft()
                    yield first, future.result()
            finally:
                for _, future in ahead:
                    future.cancel()
