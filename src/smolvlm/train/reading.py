"""A mixture's records, read ahead by threads in an order that a resumed run repeats; what gives no example is counted."""

from __future__ import annotations

import copy
import itertools
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from smolvlm.errors import MixtureError
from smolvlm.train.conversation import ConversationEncoder, Encoded, Skipped
from smolvlm.train.mixture import Mixture

_LISTED = 100  # skipped records that the state names; all are counted
_CHECK_FROM, _MAX_UNREADABLE = 100, 0.01

Place = tuple[int, int]  # (epoch, position in the epoch's order)


@dataclass
class Counts:
    """What became of the records so far. JSON-able by `vars`."""

    read: int = 0
    unreadable: int = 0
    too_long: int = 0
    cut: int = 0
    listed: list[str] = field(default_factory=list)

    def add(self, outcome: Encoded | Skipped) -> None:
        """Raises MixtureError once too many media could not be read."""
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
            raise MixtureError(
                f"{self.unreadable} of {self.read} records have media that cannot be read, more than "
                f"{_MAX_UNREADABLE:.0%}; the last: {outcome.reason}"
            )


@dataclass(frozen=True, eq=False)
class MixtureReader:
    """Encodes the records at given places. epochs None: without end. workers: threads; 0 reads when asked."""

    mixture: Mixture
    encoder: ConversationEncoder
    epochs: int | None
    workers: int

    def places(self, start: Place, rank: int, world: int) -> Iterator[Place]:
        """Every world-th place from `start` on."""
        epoch, position = start
        while self.epochs is None or epoch < self.epochs:
            if rank >= len(self.mixture):
                return  # fewer records than processes: the loop says so
            yield from ((epoch, at) for at in range(position, len(self.mixture), world))
            epoch, position = epoch + 1, rank

    def outcomes(self, places: Iterator[Place]) -> Iterator[tuple[Place, Encoded | Skipped]]:
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

    def _encode(self, number: int) -> Encoded | Skipped:
        return self.encoder(self.mixture.record(number))

    def _numbered(self, places: Iterator[Place]) -> Iterator[tuple[Place, int]]:
        """Each place with its record's number. An epoch's order is made once: it may hold millions."""
        for epoch, group in itertools.groupby(places, key=lambda place: place[0]):
            order = self.mixture.order(epoch)
            yield from ((place, int(order[place[1]])) for place in group)


class Reading:
    """One process's way through the records, from the beginning (state None) or right after what `state()` once gave.

    following: the place after the last record read. ended: no record is left.
    """

    def __init__(self, reader: MixtureReader, state: Mapping[str, Any] | None, rank: int, world: int) -> None:
        state = state or {"next": [0, rank], "counts": {}}
        self.reader, self.world = reader, world
        self.counts = Counts(**copy.deepcopy(state["counts"]))
        self.following: Place = (int(state["next"][0]), int(state["next"][1]))
        self.ended = False
        self._barren = 0  # records since the last example
        self._stream = reader.outcomes(reader.places(self.following, rank, world))

    def next_example(self) -> tuple[Place, Encoded] | None:
        """The next record that gives an example, or None at the end.

        Raises MixtureError once a whole epoch of records gave none, or too many of their media cannot be read.
        """
        for place, outcome in self._stream:
            self.following = (place[0], place[1] + self.world)
            self.counts.add(outcome)
            if isinstance(outcome, Encoded):
                self._barren = 0
                return place, outcome
            self._barren += 1
            if self._barren > len(self.reader.mixture):
                raise MixtureError(f"none of the {len(self.reader.mixture)} records gives an example; {self.counts.listed[-1]}")
        self.ended = True
        return None

    def state(self) -> dict[str, Any]:
        """The next place and the counts, JSON-able, as they are now."""
        return {"next": list(self.following), "counts": copy.deepcopy(vars(self.counts))}

    def progress(self, waiting: int = 0) -> float | None:
        """The share of all records that is given out, 0..1; `waiting` were read and are not. None without an end."""
        epochs, size = self.reader.epochs, len(self.reader.mixture)
        if epochs is None:
            return None
        if self.ended and not waiting:
            return 1.0
        done = self.following[0] * size + min(self.following[1], size) - waiting * self.world
        return min(max(done, 0) / (epochs * size), 1.0)
