"""Where a token should look: dense truth for the decoder's attention, as `dense.py` is for the tower.

A thing named in a question should look at the cells that show it, a token about to write a word of a caption or a
letter of a sign at the cell that it is about. From answers alone this "find the cell that matches the word" had not
begun after 30,000 rows (colours, places and presence were guessed among what is there): asking for it in two heads
starts it at once. The same heads of the same layers are free again where no truth is known.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from smolvlm.config import ModelConfig
from smolvlm.prompt.tokenizer import PromptTokenizer
from smolvlm.synth.parts import DEFECT_KINDS
from smolvlm.synth.sample import FrameTruth, Question, Sample
from smolvlm.synth.words import plural
from smolvlm.train.nano.dense import COLOURS, NAMES, cell_of

# Of six layers: a clip's cells find what was there before, then the time of their frame; names find their cells; answers
# find what they are about.
CHANGE_LAYER, TIME_LAYER, QUESTION_LAYER, ANSWER_LAYER = 0, 1, 2, 4
_COUNTED = 1 / 8  # attention that each counted thing gets; more than eight are never counted
HEADS = 2  # the query heads that share the first key head

# Questions about one named thing: the token that begins their answer looks where the name looked.
_ABOUT_ONE = ("colour", "position", "motion", "action")
# Questions that do not name what they are about: the same token looks for things of these names.
_SOUGHT = {"defect": DEFECT_KINDS, "defect_kind": DEFECT_KINDS}


Look: TypeAlias = tuple[tuple[int, float], ...]


@dataclass(frozen=True)
class AttentionTarget:
    """How token `at` of a row should spread its attention in `layer`: for each head, (token, share) with shares that add up
    to 1. The first head looks at the first frame that shows the thing, the second at the last: in one picture both are
    the same, in a clip the two places, and the two frames, say what happened."""

    at: int
    layer: int
    looks: tuple[Look, Look]


class TargetFinder:
    """Finds the attn_targets of a question's tokens from the sample's truth."""

    def __init__(self, config: ModelConfig, tokenizer: PromptTokenizer) -> None:
        self.side = round(config.image_seq_len**0.5)
        self.tokenizer = tokenizer
        self._names: dict[int, str] = {}
        for name in NAMES:
            for spelling in (name, plural(name)):
                ids = tokenizer.encode_text(f" {spelling}")
                self._names[ids[-1]] = name if len(ids) == 1 else self._names.get(ids[-1], "")
        self._colours = {tokenizer.encode_text(f" {colour}")[0]: colour for colour in COLOURS}
        self._shapes = tokenizer.encode_text(" shapes")[0]
        self._articles = {tokenizer.encode_text(f" {word}")[0] for word in ("a", "an", "the")}

    def find(
        self, sample: Sample, question: Question, branch: Sequence[int], answer_length: int, start: int, image_tokens: Sequence[int]
    ) -> Iterator[AttentionTarget]:
        """The attn_targets of `branch`, which stands at `start` in its row; `image_tokens` are the row's image tokens in order."""
        if not sample.truths:
            return
        answer_start = len(branch) - answer_length
        mentions: list[tuple[int, ...]] = []
        for i in range(answer_start):
            cells = self._mentioned(sample.truths, branch, i)
            if cells is not None:
                mentions.append(cells)
                if question.task == "count":
                    look = _counting([image_tokens[cell] for cell in cells], start + i)
                    yield AttentionTarget(start + i, QUESTION_LAYER, (look, look))
                else:
                    yield AttentionTarget(start + i, QUESTION_LAYER, self._first_and_last(cells, image_tokens, start + i))
        if question.task in _SOUGHT:
            sought = [cell for name in _SOUGHT[question.task] for cell in self._cells(sample.truths, name, None)]
            at = start + answer_start - 1
            yield AttentionTarget(at, ANSWER_LAYER, self._first_and_last(sought, image_tokens, at))
        elif question.task in _ABOUT_ONE and len(mentions) == 1 and mentions[0]:
            at = start + answer_start - 1
            yield AttentionTarget(at, ANSWER_LAYER, self._first_and_last(mentions[0], image_tokens, at))
        elif question.task == "when" and mentions and mentions[0]:
            when = self._event_cell(len(sample.truths), mentions[0])
            if when is not None:
                for i in range(answer_start - 1, len(branch) - 2):  # each digit is read off the frame's cell
                    yield AttentionTarget(start + i, ANSWER_LAYER, (((image_tokens[when], 1.0),),) * 2)
        elif question.task.startswith("reading"):
            for i, cell in self._spelled(sample.truths, branch, answer_start):
                yield AttentionTarget(start + i, ANSWER_LAYER, (((image_tokens[cell], 1.0),),) * 2)
        elif question.task != "presence":
            for i, cells in self._written(sample.truths, branch, answer_start):
                yield AttentionTarget(start + i, ANSWER_LAYER, self._first_and_last(cells, image_tokens, start + i))

    def _first_and_last(self, cells: Sequence[int], image_tokens: Sequence[int], itself: int) -> tuple[Look, Look]:
        """Evenly at the cells of the first and of the last frame that shows the thing; what is not there looks at itself."""
        if not cells:
            return ((itself, 1.0),), ((itself, 1.0),)
        frames = [cell // self.side**2 for cell in cells]
        first, last = (
            [image_tokens[cell] for cell, frame in zip(cells, frames, strict=True) if frame == which]
            for which in (min(frames), max(frames))
        )
        return tuple((token, 1 / len(first)) for token in first), tuple((token, 1 / len(last)) for token in last)

    def frames(self, sample: Sample, image_tokens: Sequence[int]) -> Iterator[AttentionTarget]:
        """Where cells look in which something is at some time, in clips and in pairs of pictures: at the same place one
        frame before and in the first frame, since what has changed there is what questions are about; in a clip also at the
        seconds of their frame's time. Its units are the fourth token before the frame's first image token ("0", "2", ":",
        and two control tokens), its tens the fifth."""
        cells = self.side**2
        places = sorted({cell_of(item.centre, self.side) for truth in sample.truths for item in truth.items})
        for frame in range(len(sample.truths) if len(sample.truths) > 1 else 0):
            units = image_tokens[frame * cells] - 4
            for place in places:
                at = image_tokens[frame * cells + place]
                if sample.kind == "video":
                    yield AttentionTarget(at, TIME_LAYER, (((units, 1.0),), ((units - 1, 1.0),)))
                before = image_tokens[max(frame - 1, 0) * cells + place]
                yield AttentionTarget(at, CHANGE_LAYER, (((before, 1.0),), ((image_tokens[place], 1.0),)))

    def _event_cell(self, frames: int, cells: Sequence[int]) -> int | None:
        """The cell in the frame that shows the event first: where a thing has appeared, is gone, or has another place."""
        size: int = self.side**2
        ordered = sorted(cells)
        if ordered[0] >= size:
            return ordered[0]
        if ordered[-1] // size < frames - 1:
            return ordered[-1] + size
        elsewhere = [cell for cell in ordered if cell % size != ordered[0] % size]
        return elsewhere[0] if elsewhere else None

    def _mentioned(self, truths: Sequence[FrameTruth], branch: Sequence[int], i: int) -> tuple[int, ...] | None:
        """The cells of what token i names, () if it is not there, None if it names nothing."""
        before = self._colours.get(branch[i - 1]) if i else None
        if branch[i] == self._shapes and before is not None:
            return self._cells(truths, None, before)
        name = self._names.get(branch[i])
        return self._cells(truths, name, before) if name else None

    def _cells(self, truths: Sequence[FrameTruth], name: str | None, colour: str | None) -> tuple[int, ...]:
        return tuple(
            number * self.side**2 + cell_of(item.centre, self.side)
            for number, truth in enumerate(truths)
            for item in truth.items
            if (name is None or item.name == name) and (colour is None or item.colour == colour)
        )

    def _written(self, truths: Sequence[FrameTruth], branch: Sequence[int], answer_start: int) -> Iterator[tuple[int, tuple[int, ...]]]:
        """For each thing that the answer names: the tokens that lead to its name, and the name itself, look at it. Of
        several alike in one frame, the n-th named is the n-th in reading order."""
        named: dict[tuple[str, str | None], int] = {}
        for i in range(answer_start, len(branch)):
            name = self._names.get(branch[i])
            if not name:
                continue
            colour = self._colours.get(branch[i - 1])
            cells = self._cells(truths, name, colour)
            if len(truths) == 1 and cells:
                nth = named[name, colour] = named.get((name, colour), -1) + 1
                cells = (sorted(cells, key=self._reading_order)[min(nth, len(cells) - 1)],)
            first = i - 1 if colour is None else i - 2
            if cells and branch[first] in self._articles:
                yield from ((j, cells) for j in range(first, i + 1))

    def _reading_order(self, cell: int) -> tuple[int, int]:
        third = self.side / 3
        return int(cell // self.side / third), int(cell % self.side / third)

    def _spelled(self, truths: Sequence[FrameTruth], branch: Sequence[int], answer_start: int) -> Iterator[tuple[int, int]]:
        """The token before each character looks at the character's cell."""
        characters = iter(sorted(truths[0].characters, key=lambda c: c.centre[0]))
        for i in range(answer_start, len(branch) - 1):
            if self.tokenizer.decode([branch[i]]).strip():
                character = next(characters, None)
                if character is None:
                    return
                yield i - 1, cell_of(character.centre, self.side)


def _counting(tokens: Sequence[int], itself: int) -> Look:
    """The same share for each thing and the rest for the token itself: an average over the things alone would be the same
    for one as for five, this one grows with their number."""
    return (*((token, _COUNTED) for token in tokens), (itself, 1 - _COUNTED * len(tokens)))


def attn_target_loss(
    layer: int, query: Tensor, key: Tensor, mask: Tensor, attn_targets: Iterable[tuple[int, AttentionTarget]]
) -> Tensor | None:
    """Cross-entropy between where tokens look and where they should, averaged over this layer's attn_targets and their heads.

    query (rows, heads, seq, head_dim), key (rows, kv_heads, seq, head_dim), mask (rows, 1, seq, seq) true where a query
    may look; attn_targets as (row, attn_target). None when the layer has none.
    """
    found = [(row, attn_target) for row, attn_target in attn_targets if attn_target.layer == layer]
    if not found:
        return None
    rows = torch.tensor([row for row, _ in found])
    at = torch.tensor([attn_target.at for _, attn_target in found])
    entries = [
        (i, head, token, share)
        for i, (_, attn_target) in enumerate(found)
        for head, look in enumerate(attn_target.looks)
        for token, share in look
    ]
    *places, shares = zip(*entries, strict=True)
    target = torch.zeros(len(found), HEADS, query.shape[2])
    target.index_put_(tuple(torch.tensor(place) for place in places), torch.tensor(shares), accumulate=True)
    # index_select: a row is looked into many times, and with several threads indexing sums its gradients in a random order.
    keys = key[:, 0].index_select(0, rows)
    scores = torch.einsum("nhd,nsd->nhs", query[rows, :HEADS, at], keys).float() * query.shape[-1] ** -0.5
    hidden = ~mask[:, 0][rows, at][:, None]
    looks = torch.log_softmax(scores.masked_fill(hidden, -1e9), -1)  # (attn_targets, heads, seq)
    return -(looks * target).sum(-1).mean()
