"""The loop: draw, forward, backward, step, log, save - and go on where a killed run stopped.

Nothing in here knows what is learned: the objective does. Every figure of a step depends on the options, the seed and
the step's number alone, so a resumed run repeats an unbroken one.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic

import torch
from torch import Tensor, nn

from smolvlm.errors import TrainingError
from smolvlm.options.training import LoopOptions
from smolvlm.train.batching import BatchSource, BatchT, Drawn
from smolvlm.train.checkpointing import checkpointed_layers
from smolvlm.train.graph import TrainingGraph
from smolvlm.train.objective import Objective
from smolvlm.train.optimizer import Optimizer, schedule_factor
from smolvlm.train.processes import Processes, Sums
from smolvlm.train.records import RunLog, StepRecord
from smolvlm.train.run_folder import open_run
from smolvlm.train.state import TrainerState, latest_state, load_tensors, prune, save_state

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainResult:
    """steps: optimizer steps of the whole run. losses: by logged step. notes: what the data source has to report."""

    out: Path
    steps: int
    losses: tuple[tuple[int, float], ...]
    notes: tuple[str, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(eq=False)
class _Position:
    """Where the run stands; changes with every step."""

    step: int = 0
    source: Mapping[str, Any] | None = None
    progress: float = 0.0


class Trainer(Generic[BatchT]):
    """Trains `graph` (a `TrainingGraph`, or any module that the objective can call) on what `source` draws.

    Trained are the parameters that require gradients and whose part has a learning rate above 0 (`optimizer.py`); the
    others are frozen. With the same options in `options.out`, `run` goes on from the last complete save. `stage` names
    the kind of run in `run.json`. `on_step` sees each logged step.

    Raises TrainingError for a folder of another run, options that fit no parameter, a loss that is no number, or a disk
    that refuses a save (the last complete one stays).
    """

    def __init__(
        self,
        graph: nn.Module,
        objective: Objective,
        source: BatchSource[BatchT],
        options: LoopOptions,
        *,
        stage: str = "sft",
        on_step: Callable[[StepRecord], None] | None = None,
    ) -> None:
        self.graph, self.objective, self.source, self.options = graph, objective, source, options
        self.stage, self.on_step = stage, on_step
        self.processes = Processes(fsdp=options.fsdp, seed=options.seed)

    def run(self) -> TrainResult:
        """Train to the end and return what happened. The trained weights are in the graph that was passed in."""
        self.processes.agree(self._open())
        self._prepare()
        position = self._resume()
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng())  # each step seeds its own noise; the caller's stays untouched
            if self.options.gradient_checkpointing:
                stack.enter_context(checkpointed_layers(self.graph))
            log = stack.enter_context(RunLog(self.options, position.step, self.on_step, active=self.processes.is_main))
            self._train(position, log)
        self.graph.eval()
        notes = self.source.report(position.source or {})
        return TrainResult(self.options.out, position.step, log.losses(), tuple(notes), log.last_metrics)

    def _open(self) -> str:
        """The main process takes the folder; what is wrong with it, if anything."""
        try:
            if self.processes.is_main:
                open_run(self.options, self.stage, world=self.processes.world)
        except TrainingError as error:
            return str(error)
        return ""

    def _prepare(self) -> None:
        if self.options.precision == "bfloat16":
            masters = {name: p.detach().float() for name, p in self.graph.named_parameters() if p.requires_grad}
            self.graph.to(torch.bfloat16)
        else:
            masters = None
        self.graph.to(self.processes.device)
        if isinstance(self.graph, TrainingGraph):
            self.graph.always_look = self.processes.world > 1
        Optimizer.freeze(self.graph, self.options)
        self.model = self.processes.wrap(self.graph, autocast=self.options.precision == "autocast")
        self.optimizer = Optimizer(self.graph, self.options, masters)

    def _resume(self) -> _Position:
        found = latest_state(self.options.out)
        if found is None:
            return _Position()
        state, tensors = found.state, load_tensors(found)
        if len(state.sources) != self.processes.world:
            raise TrainingError(
                f"{found.folder} was saved by {len(state.sources)} processes and this run has "
                f"{self.processes.world}; go on with as many, or train into another folder."
            )
        self.optimizer.load(tensors, where=str(found.folder))
        logger.info("going on from %s", found.folder)
        return _Position(state.step, state.sources[self.processes.rank], state.progress)

    def _train(self, position: _Position, log: RunLog) -> None:
        drawn = iter(self.source.draw(position.source, self.processes.rank, self.processes.world))
        last: Drawn[BatchT] | None = None
        saved_at = position.step
        while self.options.steps is None or position.step < self.options.steps:
            started = time.perf_counter()
            group = list(itertools.islice(drawn, self.options.gradient_accumulation))
            last = group[-1] if group else last
            total = self.processes.sums(group, last)
            if total.batches == 0:
                break
            if last is None:
                raise TrainingError(f"there are fewer batches than the {self.processes.world} processes; use fewer.")
            before, position.progress = position.progress, self._progress(position.step, total.progress)
            factor = schedule_factor((before + position.progress) / 2, self.options)
            figures = self._step(position.step, group, last, total, factor)
            rates = {part: rate * factor for part, rate in self.optimizer.rates.items()}
            loss, grad_norm = figures.pop("loss"), figures.pop("grad_norm")
            record = StepRecord(position.step + 1, loss, grad_norm, rates, time.perf_counter() - started, figures)
            position.step, position.source = position.step + 1, last.state
            log.add(record, tokens=total.tokens, progress=position.progress)
            if position.step % self.options.save_every == 0:
                self._save(position)
                saved_at = position.step
        if position.step == 0:
            raise TrainingError(
                "the data gave no batch to train on; see the counts of what was skipped in "
                f"{'; '.join(self.source.report(position.source or {})) or 'the mixture'}."
            )
        if saved_at != position.step:
            self._save(position)

    def _progress(self, step: int, of_source: float | None) -> float:
        if self.options.steps is not None:
            return (step + 1) / self.options.steps
        if of_source is None:
            raise TrainingError("the data have no end, so the run needs one: pass steps=N.")
        return of_source

    def _step(self, step: int, group: list[Drawn[BatchT]], last: Drawn[BatchT], sums: Sums, factor: float) -> dict[str, float]:
        """One optimizer step over `sums.batches` batches on every process; one that has fewer repeats its last, weighing 0.

        The figures: loss, grad_norm, and the objective's metrics, as means over all learned tokens of the step.
        """
        torch.manual_seed(self.processes.seed_of(step))
        self.graph.train()
        loss = torch.zeros((), device=self.processes.device)
        metrics: dict[str, Tensor] = {}
        for number, drawn in enumerate(_padded(group, last, sums.batches)):
            batch = drawn.batch.to(self.processes.device)
            share = (batch.weight_tokens if number < len(group) else 0) / max(sums.weight, 1.0)
            with self.processes.accumulating(self.model, number + 1 < sums.batches):
                with self.processes.autocast(self.options.precision == "autocast"):
                    output = self.objective(self.model, batch)
                # Processes average their gradients; their number makes a sum of it, which the shares make a mean.
                (output.loss * (share * self.processes.world)).backward()
            loss += output.loss.detach() * share
            for name, value in output.metrics.items():
                metrics[name] = metrics.get(name, torch.zeros_like(loss)) + torch.as_tensor(value, device=loss.device) * share
        total_loss, *figures = self.processes.total(torch.stack([loss, *metrics.values()])).tolist()
        if not math.isfinite(total_loss):
            raise TrainingError(
                f"the loss of step {step + 1} is {total_loss}; go on from an earlier save with a lower learning rate, or in float32."
            )
        grad_norm = self.optimizer.step(factor)
        return {"loss": total_loss, "grad_norm": grad_norm, **dict(zip(metrics, figures, strict=True))}

    def _save(self, position: _Position) -> None:
        sources = self.processes.gather_json(dict(position.source or {}))
        tensors = self.optimizer.tensors(keep=self.processes.is_main)
        problem = ""
        if self.processes.is_main:
            state = TrainerState(position.step, position.progress, sources)
            try:
                save_state(self.options.out, state, tensors)
                prune(self.options.out, self.options.keep)
            except TrainingError as error:
                problem = str(error)
        self.processes.agree(problem)


def _padded(group: list[Drawn[BatchT]], last: Drawn[BatchT], batches: int) -> Iterator[Drawn[BatchT]]:
    return itertools.islice(itertools.chain(group, itertools.repeat(last)), batches)
