"""What a run is asked to do. The defaults live here and nowhere else; the command line reads them from these classes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from smolvlm.errors import TrainingError
from smolvlm.options.declare import at_door, check, option, same
from smolvlm.options.media import Detail, MediaOptions

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
    steps: int | None = option(None, "Optimizer steps.", least=1, doors=("cli",), metavar="N")
    gradient_accumulation: int = option(
        1, "Batches a step, where memory has no room for one large batch.", least=1, doors=("cli",), metavar="N"
    )
    lr_vision: float = option(5e-6, "Peak rate of the vision tower; 0: frozen.", least=0, doors=("cli",), metavar="X")
    lr_connector: float = option(1e-4, "Peak rate of the connector; 0: frozen.", least=0, doors=("cli",), metavar="X")
    lr_text: float = option(2e-5, "Peak rate of the decoder; 0: frozen.", least=0, doors=("cli",), metavar="X")
    lr_muon: float = option(0.0, "Rate of Muon for the matrices of the layers; 0: AdamW.", least=0)
    schedule: str = option("cosine", "cosine or constant, after the warm-up.", choices=SCHEDULES, doors=("cli",), metavar="NAME")
    warmup_ratio: float = option(0.03, "Share of the run with a rising rate.", least=0, most=1, doors=("cli",), metavar="X")
    weight_decay: float = option(0.0, "Pull on matrices towards zero.", least=0, doors=("cli",), metavar="X")
    max_grad_norm: float = option(1.0, "Clip gradients beyond it; 0: never.", least=0, doors=("cli",), metavar="X")
    precision: str = option(
        "float32",
        "float32, autocast (bfloat16 products) or bfloat16 (and float32 masters).",
        choices=PRECISIONS,
        doors=("cli",),
        metavar="NAME",
    )
    gradient_checkpointing: bool = option(False, "Less memory, about a third more time.", doors=("cli",))
    neftune_alpha: float = option(0.0, "Noise on the embeddings (NEFTune; 5 is usual); 0: none.", least=0, doors=("cli",), metavar="X")
    seed: int = option(0, "Order of the data, and noise.", least=0, doors=("cli",), metavar="N")
    save_every: int = option(500, "Steps between two saves.", least=1, doors=("cli",), metavar="N")
    keep: int = option(2, "Saves that are kept.", least=1, doors=("cli",), metavar="N")
    log_every: int = option(1, "Steps between two lines of log.jsonl.", least=1, doors=("cli",), metavar="N")
    fsdp: bool = option(False, "Under torchrun: shard the weights over the processes.", doors=("cli",))
    progress_bar: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "out", Path(self.out))
        check(self, TrainingError, keep=True)
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
    epochs: int | None = option(None, "Passes over the data; without --steps: 1.", least=1, doors=("cli",), metavar="N")
    batch_size: int = option(8, "Rows of a batch, on each process.", least=1, doors=("cli",), metavar="N")
    seq_len: int | None = option(None, "Tokens of a row; without it: the model's context.", least=16, doors=("cli",), metavar="N")
    packing: bool = option(True, "Several conversations share a row, or one has it.", doors=("cli",))
    prompt_style: str = option(
        "training",
        "training (the authors' intro and outro of media) or official (as transformers and `smolvlm ask` prompt).",
        doors=("cli",),
        metavar="NAME",
    )
    detail: Detail = same(MediaOptions, "detail")
    fps: float | None = same(MediaOptions, "fps")
    max_frames: int | None = same(MediaOptions, "max_frames")
    workers: int = option(2, "Threads that read media ahead.", least=0, doors=("cli",), metavar="N")

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "mixture", Path(self.mixture))
        if self.epochs is None and self.steps is None:
            object.__setattr__(self, "epochs", 1)
        if self.epochs is not None and self.steps is not None:
            raise TrainingError(f"epochs={self.epochs} and steps={self.steps} exclude each other; pass one of them.")

    @property
    def media(self) -> MediaOptions:
        """How pictures and videos of the data are read."""
        return MediaOptions(**{name: getattr(self, name) for name in at_door(MediaOptions, "train")})


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value
