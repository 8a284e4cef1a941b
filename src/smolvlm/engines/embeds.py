"""What the handles of encoded tiles share, whatever memory the tiles lie in."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

A = TypeVar("A")  # an array (tiles, image_seq_len, hidden) of the engine
E = TypeVar("E", bound="ArrayEmbeds[Any]")


class ArrayEmbeds(Generic[A]):
    """Encoded tiles in an array. A subclass says how they become NumPy."""

    def __init__(self, embeds: A) -> None:
        self.embeds = embeds

    def __len__(self) -> int:
        return len(self.embeds)  # type: ignore[arg-type]

    def tiles(self: E, start: int, stop: int) -> E:
        return type(self)(self.embeds[start:stop])
