"""Dense truth: what each image token of a frame should know, from the generator's exact boxes and characters.

A cell is the square of the frame that one image token covers. The thing whose centre lies in a cell and the characters
whose centres do are that cell's labels. Learned so, a tower of nano's size tells 122 things apart after ten minutes on
two cores; from the language loss alone it had hardly begun.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smolvlm.config import ModelConfig
from smolvlm.prompt.tokenizer import PromptTokenizer
from smolvlm.synth.sample import FrameTruth
from smolvlm.synth.world import WIDE
from smolvlm.synth.writing import LETTERS

# Class 0 is "nothing" in every field. The wide world's names in their order: a model of the small one can grow into it.
NAMES = {name: i for i, name in enumerate((*WIDE.shapes, *WIDE.objects), start=1)}
COLOURS = {name: i for i, name in enumerate(WIDE.colours, start=1)}
CHARACTERS = {c: i for i, c in enumerate("0123456789" + LETTERS, start=1)}
_BINS = 3  # where in the cell a thing's centre lies, each way
_SLOTS = 3  # characters in a cell, from left to right

FIELDS: dict[str, int] = {
    "name": len(NAMES) + 1,
    "colour": len(COLOURS) + 1,
    "bin_x": _BINS + 1,
    "bin_y": _BINS + 1,
    **{f"character_{slot}": len(CHARACTERS) + 1 for slot in range(_SLOTS)},
}

UNKNOWN = -100  # no truth is kept for this frame: it adds nothing to the dense losses

Labels = npt.NDArray[np.int64]


def dense_labels(truth: FrameTruth, image_seq_len: int) -> Labels:
    """(image_seq_len, fields) classes of one frame; cells in the order of the image tokens, row by row.

    A frame with things outside the two worlds (parts, people) is UNKNOWN throughout: "nothing" would be a lie.
    """
    if any(item.name not in NAMES for item in truth.items):
        return unknown_labels(image_seq_len)
    side = math.isqrt(image_seq_len)
    labels = np.zeros((side, side, len(FIELDS)), np.int64)
    for item in sorted(truth.items, key=lambda item: item.box[2] - item.box[0]):  # the larger of two wins
        row, column = divmod(cell_of(item.centre, side), side)
        bins = [1 + int((x * side - cell) * _BINS) for x, cell in zip(item.centre, (column, row), strict=True)]
        colour = COLOURS[item.colour] if item.colour is not None else 0
        labels[row, column, :4] = (NAMES[item.name], colour, *(min(max(b, 1), _BINS) for b in bins))
    for character in sorted(truth.characters, key=lambda c: c.centre[0]):
        row, column = divmod(cell_of(character.centre, side), side)
        free = np.flatnonzero(labels[row, column, 4:] == 0)
        if len(free):
            labels[row, column, 4 + free[0]] = CHARACTERS[character.character]
    return labels.reshape(image_seq_len, len(FIELDS))


def unknown_labels(image_seq_len: int) -> Labels:
    return np.full((image_seq_len, len(FIELDS)), UNKNOWN, np.int64)


def cell_of(point: tuple[float, float], side: int) -> int:
    """The number of the cell, of side x side row by row, that holds a point (x, y) in fractions of the frame."""
    column, row = (min(max(int(x * side), 0), side - 1) for x in point)
    return row * side + column


class OracleTokens(nn.Module):
    """Image tokens from the truth instead of pixels, in the decoder's own words.

    A cell's token is the sum of the text embeddings of its thing's name and colour, of its characters (each slot turned
    by a matrix of its own, or their order would be lost), and of learned vectors for the place. Because a thing looks to
    the decoder like its name, looking it up is comparing like with like; with separate tables, colours, counts and
    presence were still guessed after 20,000 rows.
    """

    def __init__(self, config: ModelConfig, tokenizer: PromptTokenizer) -> None:
        super().__init__()
        dim = config.text.hidden_size
        self.places = nn.ModuleList(nn.Embedding(_BINS + 1, dim) for _ in range(2))
        self.cells = nn.Embedding(config.image_seq_len, dim)
        for table in (*self.places, self.cells):
            nn.init.normal_(table.weight, std=0.3)
        self.slots = nn.ModuleList(nn.Linear(dim, dim, bias=False) for _ in range(_SLOTS))
        for slot in self.slots:
            nn.init.orthogonal_(next(slot.parameters()))
        for field, words in (("name", NAMES), ("colour", COLOURS), ("character", CHARACTERS)):
            spelled = [tokenizer.encode_text(word if word.isdigit() else f" {word}") for word in words]
            ids = torch.zeros(len(words) + 1, max(map(len, spelled)), dtype=torch.int64)
            share = torch.zeros(ids.shape)
            for i, tokens in enumerate(spelled, start=1):
                ids[i, : len(tokens)] = torch.tensor(tokens)
                share[i, : len(tokens)] = 1 / len(tokens)
            self.register_buffer(f"{field}_ids", ids, persistent=False)
            self.register_buffer(f"{field}_share", share, persistent=False)

    def forward(self, labels: Tensor, embed_tokens: nn.Module) -> Tensor:
        """(tiles, image_seq_len, fields) -> (tiles, image_seq_len, text_dim)."""

        def words(field: str) -> Tensor:
            share = self.get_buffer(f"{field}_share").to(self.cells.weight.dtype)
            table: Tensor = (embed_tokens(self.get_buffer(f"{field}_ids")) * share[..., None]).sum(1)
            return table

        # F.embedding and not table[labels]: with several threads the gradient of indexing is summed in a random order.
        tokens: Tensor = self.cells.weight + F.embedding(labels[..., 0], words("name"))
        tokens = tokens + F.embedding(labels[..., 1], words("colour"))
        for place, column in zip(self.places, (2, 3), strict=True):
            tokens = tokens + place(labels[..., column])
        characters = words("character")
        for i, slot in enumerate(self.slots):
            tokens = tokens + F.embedding(labels[..., 4 + i], slot(characters))
        return tokens


class DenseHeads(nn.Module):
    """Linear read-outs of the folded patches, (tiles, image_seq_len, vision_dim * r**2), one for each field."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.vision.hidden_size * config.scale_factor**2, sum(FIELDS.values()))
        nn.init.zeros_(self.proj.bias)
        nn.init.normal_(self.proj.weight, std=0.02)

    def forward(self, folded: Tensor) -> Sequence[Tensor]:
        """Logits of each field, (tiles, image_seq_len, classes)."""
        logits: Tensor = self.proj(folded)
        return list(logits.split(list(FIELDS.values()), -1))

    def loss(self, folded: Tensor, labels: Tensor, empty_weight: float = 0.1) -> tuple[Tensor, dict[str, list[float]]]:
        """Cross-entropy summed over fields; most cells are empty and count a tenth. Metrics: recall of what is there."""
        total = folded.new_zeros((), dtype=torch.float32)
        metrics = {}
        for i, (field, logits) in enumerate(zip(FIELDS, self(folded), strict=True)):
            target = labels[..., i].flatten()
            weight = torch.where(target > 0, 1.0, empty_weight) * (target != UNKNOWN)
            losses = F.cross_entropy(logits.flatten(0, 1).float(), target, reduction="none", ignore_index=UNKNOWN)
            total = total + (losses * weight).sum() / weight.sum().clamp(min=1)
            there = target > 0
            if field in ("name", "colour", "bin_x", "character_0"):
                metrics[field] = (logits.flatten(0, 1).argmax(-1) == target)[there].float().tolist()
        return total, metrics
