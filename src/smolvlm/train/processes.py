"""One process or many: device, DDP or FSDP through `accelerate`, and the few exchanges that the loop needs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor

from smolvlm.errors import TrainingError
from smolvlm.nn.text import TextLayer
from smolvlm.nn.vision import VisionLayer
from smolvlm.train.batching import Drawn


@dataclass(frozen=True)
class Sums:
    """Over all processes: the most batches that one has for this step; weights and tokens added; the mean progress."""

    batches: int
    weight: float
    tokens: int
    progress: float | None


class Processes:
    """The processes that `torchrun` or `accelerate launch` started; without either, this one alone."""

    def __init__(self, *, fsdp: bool = False, seed: int = 0) -> None:
        self.seed = seed
        has_device = torch.cuda.is_available() or torch.backends.mps.is_available()
        # Without `cpu` accelerate would not join CPU processes. Precision is ours: see `autocast`.
        self.accelerator = Accelerator(mixed_precision="no", cpu=not has_device)
        self.fsdp = fsdp and self.accelerator.num_processes > 1
        if fsdp and not self.fsdp:
            raise TrainingError(
                "fsdp shards weights over processes, and there is one; start with `torchrun --nproc-per-node N -m smolvlm train ...`."
            )

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def world(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)

    def seed_of(self, step: int) -> int:
        """A seed for the noise of one step on this process; no state of a generator needs to be saved so."""
        return ((self.seed * 1_000_003 + step) * 1_000_003 + self.rank) % 2**63

    def wait(self) -> None:
        """Until every process is here."""
        self.accelerator.wait_for_everyone()

    def wrap(self, graph: nn.Module, *, autocast: bool) -> nn.Module:
        """The graph for forward calls: itself, in DDP, or with its layers sharded in place (FSDP 2)."""
        if self.world == 1:
            return graph
        if not self.fsdp:
            wrapped: nn.Module = self.accelerator.prepare_model(graph)
            return wrapped
        return _shard(graph, autocast=autocast)

    def accumulating(self, model: nn.Module, more: bool) -> AbstractContextManager[Any]:
        """Around forward and backward: while `more` batches follow, gradients stay on their process."""
        if self.world == 1:
            return contextlib.nullcontext()
        if self.fsdp:
            model.set_requires_gradient_sync(not more)  # type: ignore[operator]
            return contextlib.nullcontext()
        return self.accelerator.no_sync(model) if more else contextlib.nullcontext()

    def autocast(self, wanted: bool) -> AbstractContextManager[Any]:
        """bfloat16 products inside the `with` block."""
        if not wanted:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def sums(self, group: Sequence[Drawn[Any]], last: Drawn[Any] | None) -> Sums:
        """What the processes have for the next step, together."""
        progress = last.progress if last is not None else 1.0
        own = [
            len(group),
            sum(d.batch.weight_tokens for d in group),
            sum(d.batch.tokens for d in group),
            -1.0 if progress is None else progress,
        ]
        rows = self._gather(torch.tensor(own, dtype=torch.float64)).tolist()
        mean = sum(row[3] for row in rows) / len(rows)
        return Sums(
            int(max(row[0] for row in rows)), sum(row[1] for row in rows), int(sum(row[2] for row in rows)), None if mean < 0 else mean
        )

    def total(self, values: Tensor) -> Tensor:
        """Element by element, the sum over the processes."""
        return values if self.world == 1 else self._gather(values).sum(0)

    def gather_json(self, value: Mapping[str, Any]) -> list[dict[str, Any]]:
        """The values of all processes, in the order of their ranks. JSON bytes, because objects would be pickled."""
        data = torch.frombuffer(bytearray(json.dumps(value).encode()), dtype=torch.uint8)
        lengths = self._gather(torch.tensor([len(data)])).flatten().tolist()
        padded = torch.zeros(max(lengths), dtype=torch.uint8)
        padded[: len(data)] = data
        rows = self._gather(padded)
        return [json.loads(bytes(row[:length].tolist())) for row, length in zip(rows, lengths, strict=True)]

    def agree(self, problem: str) -> None:
        """Every process raises TrainingError when one has a problem; without it the others would wait forever."""
        problems = [value["problem"] for value in self.gather_json({"problem": problem})]
        if any(problems):
            raise TrainingError(next(filter(None, problems)))

    def _gather(self, values: Tensor) -> Tensor:
        """(…) of each process -> (world, …) on the CPU."""
        if self.world == 1:
            return values[None].cpu()
        mine = values.to(self.device)
        rows = [torch.empty_like(mine) for _ in range(self.world)]
        torch.distributed.all_gather(rows, mine)
        return torch.stack(rows).cpu()


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a sharded tensor (every process must ask); any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def like_shard(whole: Tensor, like: Tensor) -> Tensor:
    """`whole`, split and placed as `like` is."""
    if isinstance(like, DTensor):
        return distribute_tensor(whole.to(like.device), like.device_mesh, like.placements)
    return whole.to(like.device, like.dtype)


def _shard(graph: nn.Module, *, autocast: bool) -> nn.Module:
    """Each layer a unit of its own, the rest another. Weights and sums of gradients stay float32."""
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16 if autocast else None, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for module in graph.modules():
        if isinstance(module, TextLayer | VisionLayer):
            fully_shard(module, mp_policy=policy)
    fully_shard(graph, mp_policy=policy)  # in place: the same object, of a class that gathers and scatters
    return graph
