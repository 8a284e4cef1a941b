"""A prompt: the token ids of a conversation, and the tiles of its media."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from smolvlm.inference.tiles import Tile
from smolvlm.processor import MediaInfo, Worded


@dataclass(frozen=True, eq=False)
class Medium:
    """One picture or video that was read: what became of it, and its tiles, whose pixels go when they are encoded."""

    info: MediaInfo
    tiles: tuple[Tile, ...]


@dataclass(frozen=True, eq=False)
class Prompt:
    """`input_ids` with the media behind their image tokens, in order."""

    worded: Worded
    media: tuple[Medium, ...]

    @property
    def input_ids(self) -> tuple[int, ...]:
        return self.worded.input_ids

    @property
    def tiles(self) -> list[Tile]:
        return [tile for medium in self.media for tile in medium.tiles]

    @property
    def infos(self) -> tuple[MediaInfo, ...]:
        return tuple(medium.info for medium in self.media)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a reader of the answer should know."""
        return self.worded.warnings

    def first(self, tokens: int) -> Prompt:
        """The prompt's first tokens, which end after its last medium."""
        return dataclasses.replace(self, worded=dataclasses.replace(self.worded, input_ids=self.input_ids[:tokens]))
