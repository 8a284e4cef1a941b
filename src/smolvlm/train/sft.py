"""Supervised fine-tuning: a checkpoint and a mixture in, a checkpoint out."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from smolvlm.config import ModelConfig
from smolvlm.errors import TrainingError
from smolvlm.hub import resolve
from smolvlm.nn.weights import load_model
from smolvlm.options.training import TrainOptions
from smolvlm.processor import Processor
from smolvlm.train.conversation import ConversationEncoder
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.loop import Trainer, TrainResult
from smolvlm.train.mixture import Mixture
from smolvlm.train.mixture_batches import MixtureBatches
from smolvlm.train.objective import SFTObjective
from smolvlm.train.output import is_finished, save_output, whole_model
from smolvlm.train.records import StepRecord
from smolvlm.train.run_folder import open_run

logger = logging.getLogger(__name__)


def sft(options: TrainOptions, on_step: Callable[[StepRecord], None] | None = None) -> TrainResult:
    """Train `options.model` on `options.mixture`; the official-format checkpoint stands in `options.out`.

    The same options in the same folder go on where a killed run stopped; a finished run is left as it is. Works under
    `torchrun`. Raises TrainingError, MixtureError, and what loading a checkpoint raises.
    """
    source = resolve(options.model)
    processor = Processor.from_folder(source, prompt_style=options.prompt_style)
    mixture = Mixture.from_file(options.mixture, seed=options.seed)
    batches = mixture_batches(mixture, processor, options)
    if is_finished(options.out):
        open_run(options, "sft")  # whose is it?
        logger.warning("%s is finished already; nothing was changed", options.out)
        return TrainResult(options.out, 0, ())
    graph = TrainingGraph(load_model(source, processor.model), neftune_alpha=options.neftune_alpha)
    trainer = Trainer(graph, SFTObjective(), batches, options, on_step=on_step)
    result = trainer.run()
    write_output(trainer, graph, source)
    return result


def write_output(trainer: Trainer[Any], graph: TrainingGraph, source: Path) -> None:
    """The trained weights as a checkpoint in the run's folder. Every process must call it."""
    model = whole_model(graph.net, keep=trainer.processes.is_main)
    problem = ""
    if model is not None:
        try:
            save_output(model, trainer.options.out, source)
        except TrainingError as error:
            problem = str(error)
    trainer.processes.agree(problem)


def mixture_batches(mixture: Mixture, processor: Processor, options: TrainOptions) -> MixtureBatches:
    """The batches that `options` ask for. Raises TrainingError for a seq_len beyond the model's context."""
    encoder = ConversationEncoder(processor, context(options, processor.model), options.media)
    return MixtureBatches(
        mixture, encoder, batch_size=options.batch_size, epochs=options.epochs, packing=options.packing, workers=options.workers
    )


def context(options: TrainOptions, model: ModelConfig) -> int:
    """The tokens of a row."""
    limit = model.text.max_position_embeddings
    if options.seq_len is not None and options.seq_len > limit:
        raise TrainingError(f"seq_len={options.seq_len} is beyond the model's context of {limit}.")
    return options.seq_len or limit
