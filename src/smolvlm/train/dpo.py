"""Preference training from a file of pairs to a checkpoint or an adapter: `smolvlm train dpo`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from smolvlm.options.declare import same
from smolvlm.train.dpo_objective import DPOLoss, DPOObjective
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.loop import TrainResult
from smolvlm.train.preferences import PairBatches, PairEncoder, pair_mixture
from smolvlm.train.records import StepRecord
from smolvlm.train.sft import context
from smolvlm.train.tuning import RATES, Base, TuneOptions, tune


@dataclass(frozen=True, kw_only=True)
class DPOOptions(TuneOptions):
    """mixture: here the JSONL of preference pairs. beta: how dearly distance from the reference is paid, 0.05 to 0.5.
    label_smoothing: the share of pairs that may be the wrong way round. batch_size counts pairs.

    The reference is the model as it was: without its adapter, or for "full" a second, frozen copy in memory.
    """

    beta: float = same(DPOLoss, "beta")
    label_smoothing: float = same(DPOLoss, "label_smoothing")

    @classmethod
    def rates(cls, method: str) -> dict[str, float]:
        """A tenth and less of what plain fine-tuning bears: the loss rewards running away from the reference."""
        return dict.fromkeys(RATES, 1e-6 if method == "full" else 5e-5)


def dpo(options: DPOOptions, on_step: Callable[[StepRecord], None] | None = None) -> TrainResult:
    """Train `options.model` to prefer the chosen answers; `tuning.result_folder(options)` holds the outcome.

    Logs reward margins and accuracy with every step. Goes on where a killed run stopped. Raises MixtureError for pairs that
    cannot be used, TrainingError, and what loading a checkpoint raises.
    """
    base = Base.open(options)
    encoder = PairEncoder(base.processor, context(options, base.processor.model), options.media)
    source = PairBatches(
        pair_mixture(options.mixture, seed=options.seed),
        encoder,
        batch_size=options.batch_size,
        epochs=options.epochs,
        packing=False,
        workers=options.workers,
    )

    def objective(base: Base) -> DPOObjective:
        reference = TrainingGraph(base.weights()) if options.method == "full" else None
        return DPOObjective(reference, beta=options.beta, label_smoothing=options.label_smoothing)

    return tune(base, options, source, objective, stage="dpo", on_step=on_step)
