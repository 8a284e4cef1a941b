"""nano's model in training, and what each stage minimizes.

Three stages (what a prototype taught): the decoder alone on oracle tokens learns in minutes to look things up, which it
hardly begins to do behind an untrained tower; the tower alone learns the dense truth; then both together, with the
decoder's own tables as a target for the tower's tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smolvlm.config import ModelConfig
from smolvlm.nn.attention import attention
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.prompt.tokenizer import PromptTokenizer
from smolvlm.train.nano.attention_targets import AttentionTarget, attn_target_loss
from smolvlm.train.nano.dense import UNKNOWN, DenseHeads, OracleTokens
from smolvlm.train.nano.rows import PAD_SEGMENT, Row, row_mask
from smolvlm.train.nano.start import start
from smolvlm.train.objective import LossOutput

Stage: TypeAlias = Literal["decoder", "tower", "both"]
STAGES: tuple[Stage, ...] = get_args(Stage)

_ORACLE_NOISE = 0.1  # standard deviation; the tower's tokens will not be exact either
_DENSE_WEIGHT = 0.3  # of the dense losses beside the language loss
_TARGET_WEIGHT = 0.2  # of the attention's truth
_MATCH_WEIGHT = 0.3  # of the distance from the oracle's tokens


@dataclass(frozen=True, eq=False)
class NanoBatch:
    """Rows side by side: input_ids, segments, positions (rows, seq) int64; weights (rows, seq) float32; mask (rows, 1,
    seq, seq) bool; frames uint8 (tiles, side, side, 3) of all rows in order; labels (tiles, image_seq_len, fields);
    attn_targets: (row, where one of its tokens should look); tasks: each row's questions, the first with segment number 1."""

    input_ids: Tensor
    segments: Tensor
    positions: Tensor
    weights: Tensor
    mask: Tensor
    frames: Tensor
    labels: Tensor
    attn_targets: tuple[tuple[int, AttentionTarget], ...]
    tasks: tuple[tuple[str, ...], ...]

    @property
    def tokens(self) -> int:
        """Without padding."""
        return int((self.segments != PAD_SEGMENT).sum())

    @property
    def weight_tokens(self) -> int:
        """Rows: what the batch counts for beside others."""
        return len(self.input_ids)

    def to(self, device: torch.device | str) -> NanoBatch:
        """The same batch on another device."""
        moved: dict[str, Any] = {
            f.name: value.to(device, non_blocking=True) for f in fields(self) if isinstance(value := getattr(self, f.name), Tensor)
        }
        return replace(self, **moved)


def rows_to_batch(rows: Sequence[Row], tasks: Sequence[tuple[str, ...]] = ()) -> NanoBatch:
    """Rows of one length -> a batch."""
    segments = np.stack([row.segments for row in rows])
    return NanoBatch(
        torch.from_numpy(np.stack([row.input_ids for row in rows])),
        torch.from_numpy(segments),
        torch.from_numpy(np.stack([row.positions for row in rows])),
        torch.from_numpy(np.stack([row.weights for row in rows])),
        torch.from_numpy(row_mask(segments, np.array([row.conversation for row in rows]))),
        torch.from_numpy(np.concatenate([row.frames for row in rows])),
        torch.from_numpy(np.concatenate([row.labels for row in rows])),
        tuple((number, attn_target) for number, row in enumerate(rows) for attn_target in row.attn_targets),
        tuple(tasks),
    )


class AnswerLoss(NamedTuple):
    """answers: weighted mean cross-entropy. attn_target: of the attention. learned: bool (rows, seq - 1), where an answer's token
    is predicted. right: of those, which were."""

    answers: Tensor
    attn_target: Tensor
    learned: Tensor
    right: Tensor


class Nano(nn.Module):
    """The model with what only training needs beside it: the oracle's tables and the dense heads."""

    def __init__(self, config: ModelConfig, tokenizer: PromptTokenizer, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.config = config
        self.model = SmolVLMForConditionalGeneration(config)
        start(self.model, seed)
        self.oracle = OracleTokens(config, tokenizer)
        self.heads = DenseHeads(config)

    def folded(self, batch: NanoBatch) -> Tensor:
        """The folded patches of all frames, (tiles, image_seq_len, vision_dim * r**2), which the connector projects."""
        pixel_values = batch.frames.permute(0, 3, 1, 2).to(self.heads.proj.weight.dtype) / 127.5 - 1
        trunk = self.model.model
        folded: Tensor = trunk.connector.fold(trunk.vision_model(pixel_values))
        return folded

    def image_embeds(self, batch: NanoBatch) -> Tensor:
        """The tower's image tokens, (tiles, image_seq_len, text_dim)."""
        tokens: Tensor = self.model.model.connector.modality_projection["proj"](self.folded(batch))
        return tokens

    def oracle_embeds(self, labels: Tensor) -> Tensor:
        """The oracle's image tokens, (tiles, image_seq_len, text_dim)."""
        tokens: Tensor = self.oracle(labels, self.model.model.text_model.embed_tokens)
        return tokens

    def answer_loss(self, batch: NanoBatch, image_embeds: Tensor) -> AnswerLoss:
        """The losses of the answers and of where tokens look."""
        target_losses: list[Tensor] = []

        def attend(layer: int, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
            loss = attn_target_loss(layer, query, key, batch.mask, batch.attn_targets)
            if loss is not None:
                target_losses.append(loss)
            return attention(query, key, value, causal=False, mask=batch.mask)

        inputs_embeds = self.model.embed(batch.input_ids, image_embeds)
        hidden_states = self.model.model.text_model(inputs_embeds, batch.positions, attend)
        learned = batch.weights[:, 1:] > 0
        logits = self.model.lm_head(hidden_states[:, :-1][learned]).float()
        targets, weights = batch.input_ids[:, 1:][learned], batch.weights[:, 1:][learned]
        losses = F.cross_entropy(logits, targets, reduction="none")
        attn_target = torch.stack(target_losses).mean() if target_losses else logits.new_zeros(())
        mean = (losses * weights).sum() / weights.sum().clamp(min=1e-6)  # rows of letters alone ask nothing
        return AnswerLoss(mean, attn_target, learned, logits.argmax(-1) == targets)

    def forward(self, batch: NanoBatch, stage: Stage) -> tuple[Tensor, dict[str, list[float]]]:
        """What a stage minimizes, and its figures: losses, recalls, and exact match by task, one entry an answer."""
        if stage == "decoder":
            tokens = self.oracle_embeds(batch.labels)
            noise = _ORACLE_NOISE if torch.is_grad_enabled() else 0.0
            found = self.answer_loss(batch, tokens + noise * torch.randn_like(tokens))
            figures = {"attn_target_loss": [found.attn_target.item()]} | exact_by_task(batch, found.learned, found.right)
            return found.answers + _TARGET_WEIGHT * found.attn_target, figures
        folded = self.folded(batch)
        dense, figures = self.heads.loss(folded, batch.labels)
        if stage == "tower":
            return dense, figures
        tokens = self.model.model.connector.modality_projection["proj"](folded)
        found = self.answer_loss(batch, tokens)
        figures |= {"answer_loss": [found.answers.item()], "attn_target_loss": [found.attn_target.item()], "dense_loss": [dense.item()]}
        figures |= exact_by_task(batch, found.learned, found.right)
        match = self._distance(tokens, batch.labels)
        return found.answers + _TARGET_WEIGHT * found.attn_target + _DENSE_WEIGHT * dense + _MATCH_WEIGHT * match, figures

    def _distance(self, tokens: Tensor, labels: Tensor) -> Tensor:
        """Mean squared distance of the tower's tokens from the oracle's, in units of the oracle's variance."""
        known = labels[..., 0] != UNKNOWN
        target = self.oracle_embeds(labels.clamp(min=0)).detach().float()[known]
        if not len(target):
            return tokens.new_zeros((), dtype=torch.float32)
        distance: Tensor = F.mse_loss(tokens.float()[known], target) / target.var()
        return distance


@dataclass(frozen=True)
class StageObjective:
    """One stage as an `Objective` of the loop, over a `Nano`."""

    stage: Stage

    def __call__(self, model: nn.Module, batch: NanoBatch) -> LossOutput:
        loss, figures = model(batch, self.stage)
        answers = [right for task in {task for row in batch.tasks for task in row} for right in figures.get(task, ())]
        metrics = {name: values[0] for name, values in figures.items() if name.endswith("_loss")}
        return LossOutput(loss, batch.weight_tokens, metrics | {"exact": sum(answers) / max(len(answers), 1)})


def trained_in(stage: Stage, name: str) -> bool:
    """Whether a stage trains the parameter of this name."""
    in_tower = name.startswith(("model.model.vision_model.", "heads."))
    if stage == "decoder":
        return not in_tower and "connector" not in name
    return in_tower if stage == "tower" else not name.startswith("oracle.")


def exact_by_task(batch: NanoBatch, learned: Tensor, right: Tensor) -> dict[str, list[float]]:
    """1.0 for each answer that is right in every token. With greedy decoding that is the exact match: each token was
    predicted from a prefix that greedy decoding would have written."""
    answers: dict[tuple[int, int], bool] = {}
    rows, segments = learned.nonzero()[:, 0], batch.segments[:, 1:][learned]
    for row, segment, ok in zip(rows.tolist(), segments.tolist(), right.tolist(), strict=True):
        answers[row, segment] = answers.get((row, segment), True) and ok
    found: dict[str, list[float]] = defaultdict(list)
    for (row, segment), ok in answers.items():
        if batch.tasks:
            found[batch.tasks[row][segment - 1]].append(float(ok))
    return found
