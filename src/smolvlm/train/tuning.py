"""What `finetune`, `dpo` and `distill` share: full weights or an adapter, from the loaded model to what is written."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from smolvlm.errors import AdapterError, TrainingError
from smolvlm.hub import resolve
from smolvlm.nn.model import SmolVLMForConditionalGeneration
from smolvlm.nn.weights import load_model
from smolvlm.options.training import TrainOptions
from smolvlm.processor import Processor
from smolvlm.train.adapters import METHODS, AdapterOptions, add_adapter, save_adapter
from smolvlm.train.batching import BatchSource
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.loop import Trainer, TrainResult
from smolvlm.train.objective import Objective
from smolvlm.train.output import is_finished
from smolvlm.train.records import StepRecord
from smolvlm.train.run_folder import open_run
from smolvlm.train.sft import write_output

logger = logging.getLogger(__name__)

ADAPTER_FOLDER = "adapter"  # inside the run's folder
ALL_METHODS = ("full", *METHODS)
RATES = ("lr_vision", "lr_connector", "lr_text")

OptionsT = TypeVar("OptionsT", bound="TuneOptions")


@dataclass(frozen=True, kw_only=True)
class TuneOptions(TrainOptions):
    """Training with whole weights or an adapter.

    method: "full", "lora", "dora" or "qlora". rank, alpha, dropout: of the adapter. adapt_vision: adapters in the vision
    encoder too. Use `for_method` to get the learning rates that suit the method.
    """

    method: str = "lora"
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    adapt_vision: bool = False
    prompt_style: str = "official"  # how `smolvlm ask` words it later

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in ALL_METHODS:
            raise TrainingError(f"method={self.method!r}: expected one of {', '.join(ALL_METHODS)}.")
        if self.method != "full":
            self.adapter_options()
            if self.fsdp:
                raise TrainingError(
                    "an adapter's base is small beside what training whole weights needs, and fsdp is not "
                    "supported with one; leave fsdp away."
                )

    def adapter_options(self) -> AdapterOptions:
        """Raises TrainingError for a value out of its range."""
        try:
            return AdapterOptions(self.method, self.rank, self.alpha, self.dropout, self.adapt_vision)
        except AdapterError as error:
            raise TrainingError(str(error)) from None

    @classmethod
    def for_method(cls: type[OptionsT], method: str, **given: Any) -> OptionsT:
        """Options with the rates that suit `method`; those in `given` come first, None stands for the default."""
        chosen = {**cls.rates(method), **{k: v for k, v in given.items() if v is not None}}
        return cls(method=method, **chosen)

    @classmethod
    def rates(cls, method: str) -> dict[str, float]:
        """The peak rates where nobody chose any: an adapter starts from nothing and bears more (QLoRA, arXiv 2305.14314, has
        2e-4 at this size); for whole weights the authors', which `LoopOptions` has."""
        return {} if method == "full" else dict.fromkeys(RATES, 2e-4)


@dataclass(frozen=True, eq=False)
class Base:
    """The checkpoint that is trained: its folder and its processor. Cheap: no weights."""

    folder: Path
    processor: Processor

    @classmethod
    def open(cls, options: TrainOptions) -> Base:
        folder = resolve(options.model)
        return cls(folder, Processor.from_folder(folder, prompt_style=options.prompt_style))

    def weights(self) -> SmolVLMForConditionalGeneration:
        """A fresh float32 copy of the model."""
        return load_model(self.folder, self.processor.model)


def result_folder(options: TuneOptions) -> Path:
    """Where the outcome of a run stands: a checkpoint in `out` itself, an adapter in its `adapter` folder."""
    return options.out if options.method == "full" else options.out / ADAPTER_FOLDER


def tune(
    base: Base,
    options: TuneOptions,
    source: BatchSource[Any],
    objective: Callable[[Base], Objective],
    *,
    stage: str,
    make_graph: Callable[[SmolVLMForConditionalGeneration], TrainingGraph] | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
) -> TrainResult:
    """Train `base` as `options.method` says on what `source` draws, and write the checkpoint or the adapter.

    The same options in the same folder go on where a killed run stopped; a finished run is left as it is. `objective` is
    made only when there is something to train.
    """
    finished = is_finished(options.out) if options.method == "full" else (options.out / ADAPTER_FOLDER).is_dir()
    if finished:
        open_run(options, stage)  # whose is it?
        logger.warning("%s is finished already; nothing was changed", options.out)
        return TrainResult(options.out, 0, ())
    net = base.weights()
    if options.method != "full":
        add_adapter(net, options.adapter_options(), seed=options.seed)
    graph = make_graph(net) if make_graph else TrainingGraph(net, neftune_alpha=options.neftune_alpha)
    trainer: Trainer[Any] = Trainer(graph, objective(base), source, options, stage=stage, on_step=on_step)
    result = trainer.run()
    if options.method == "full":
        write_output(trainer, graph, base.folder)
    elif trainer.processes.is_main:
        save_adapter(net, options.out / ADAPTER_FOLDER, base.folder, _shared_name(options.model))
    trainer.processes.wait()
    return result


def _shared_name(model: str) -> str:
    """The base's name in the adapter's files: a Hub id or short name as it is, a folder by its whole path."""
    path = Path(model).expanduser()
    return str(path.resolve()) if path.is_dir() else model
