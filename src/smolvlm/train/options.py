"""What a run is asked to do. The defaults live here and nowhere else; the command line reads them from these classes."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from smolvlm.errors import TrainingError

PRECISIONS = ("float32", "autocast", "bfloat16")
SCHEDULES = ("cosine", "constant")

# They say where and how often things are written, or how fast data come, and change no figure of the run.
_FREE = ("out", "save_every", "keep", "log_every", "workers", "progress_bar")


@dataclass(frozen=True, kw_only=True)
class LoopOptions:
    """What every stage shares. Raises TrainingError for a value out of its range.

    out: the folder of the run. steps: optimizer steps; None where the data's end ends the run.
    gradient_accumulation: batches a step (on each process). lr_vision, lr_connector, lr_text: peak learning rates of
    SigLIP, the connector, and the decoder with its embeddings and head; 0 freezes the part. The defaults are the
    authors' for the 256M model. lr_muon: above 0, Muon steps the matrices of the layers at this rate (for training from
    nothing: AdamW took several times the steps). warmup_ratio: share of the steps with a rising rate; `schedule` says what follows.
    weight_decay: on matrices only (never norms, biases, embeddings). max_grad_norm: clipping; 0 for none.
    precision: float32; autocast (bfloat16 products, float32 weights); bfloat16 (bfloat16 weights, float32 masters).
    neftune_alpha: noise on the embeddings, 0 for none. seed: order of the data and noise. save_every: steps between
    saves; keep: saves kept. log_every: steps between lines of the log. fsdp: shard weights over the processes.
    """

    out: Path
    steps: int | None = None
    gradient_accumulation: int = 1
    lr_vision: float = 5e-6
    lr_connector: float = 1e-4
    lr_text: float = 2e-5
    lr_muon: float = 0.0
    schedule: str = "cosine"
    warmup_ratio: float = 0.03
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    precision: str = "float32"
    gradient_checkpointing: bool = False
    neftune_alpha: float = 0.0
    seed: int = 0
    save_every: int = 500
    keep: int = 2
    log_every: int = 1
    fsdp: bool = False
    progress_bar: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", Path(self.out))
        for name in ("gradient_accumulation", "save_every", "keep", "log_every"):
            _whole(name, getattr(self, name), 1)
        if self.steps is not None:
            _whole("steps", self.steps, 1)
        _whole("seed", self.seed, 0)
        for name in ("lr_vision", "lr_connector", "lr_text", "lr_muon", "weight_decay", "max_grad_norm", "neftune_alpha"):
            _number(name, getattr(self, name))
        _number("warmup_ratio", self.warmup_ratio, most=1.0)
        _one_of("precision", self.precision, PRECISIONS)
        _one_of("schedule", self.schedule, SCHEDULES)
        if self.fsdp and self.precision == "bfloat16":
            raise TrainingError(
                "precision='bfloat16' keeps masters of whole weights and cannot be combined with fsdp; pass precision='autocast'."
            )

    def fingerprint(self) -> str:
        """A hash of all options that change the figures of a run: the same hash may resume it."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:16]

    def to_dict(self) -> dict[str, Any]:
        """The options that change figures, JSON-able."""
        return {f.name: _plain(getattr(self, f.name)) for f in fields(self) if f.name not in _FREE}


@dataclass(frozen=True, kw_only=True)
class TrainOptions(LoopOptions):
    """Supervised fine-tuning on a mixture.

    model: a checkpoint's folder, a Hub id or a short name. mixture: the YAML file. epochs: passes over the data; None
    with `steps`. batch_size: rows of a batch on each process. seq_len: tokens of a row; None for the model's context.
    packing: several conversations share a row. prompt_style: "training" words prompts as the authors trained (system
    message, intro and outro of media), "official" as `transformers` prompts. detail, fps, max_frames: as in
    `MediaOptions`, None for what the checkpoint says. workers: threads that read media; 0 reads between the steps.
    """

    model: str
    mixture: Path
    epochs: int | None = None
    batch_size: int = 8
    seq_len: int | None = None
    packing: bool = True
    prompt_style: str = "training"
    detail: str = "official"
    fps: float | None = None
    max_frames: int | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mixture", Path(self.mixture))
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)
        if self.epochs is not None and self.steps is not None:
            raise TrainingError(f"epochs={self.epochs} and steps={self.steps} exclude each other; pass one of them.")
        for name, least in (("epochs", 1), ("batch_size", 1), ("seq_len", 16), ("workers", 0)):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), least)


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise TrainingError(f"{name}={value!r}: expected a whole number of at least {least}.")


def _number(name: str, value: Any, most: float = math.inf) -> None:
    good = not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value)
    if not good or not 0 <= value <= most:
        upper = "" if math.isinf(most) else f" and at most {most:g}"
        raise TrainingError(f"{name}={value!r}: expected a number of at least 0{upper}.")


def _one_of(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise TrainingError(f"{name}={value!r}: expected one of {', '.join(choices)}.")
