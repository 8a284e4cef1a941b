"""AdamW (and Muon) with a learning rate for each part, float32 masters where weights are bfloat16, the rate over the run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from smolvlm.errors import TrainingError
from smolvlm.options.training import LoopOptions
from smolvlm.train.processes import full_tensor, like_shard

_MOMENTS = ("exp_avg", "exp_avg_sq", "step", "momentum_buffer")


def part_of(name: str) -> str:
    """Which rate a parameter takes by its path: "vision", "connector", or "text" for everything else."""
    for part, module in (("vision", "vision_model"), ("connector", "connector")):
        if module in name.split("."):
            return part
    return "text"


def decays(name: str, parameter: Tensor) -> bool:
    """Weight decay pulls on matrices of products; norms, biases and embeddings are left alone."""
    return parameter.ndim > 1 and not any("embed" in piece for piece in name.split("."))


def is_layer_matrix(name: str, parameter: Tensor) -> bool:
    """What Muon is for: the matrices inside layers, not embeddings, heads, convolutions."""
    return parameter.ndim == 2 and "layers" in name.split(".")


def schedule_factor(progress: float, options: LoopOptions) -> float:
    """The share of the peak rate at `progress` (0..1) of the run: a linear rise, then half a cosine, or constant."""
    if progress < options.warmup_ratio:
        return progress / options.warmup_ratio
    if options.schedule == "constant":
        return 1.0
    done = (progress - options.warmup_ratio) / max(1.0 - options.warmup_ratio, 1e-12)
    return 0.5 * (1.0 + math.cos(math.pi * min(done, 1.0)))


class Optimizer:
    """AdamW (arXiv 1711.05101; betas 0.9, 0.999, epsilon 1e-8) over the parameters of `graph` that require gradients, or
    Muon (Jordan et al. 2024, momentum 0.95) for the layers' matrices where `lr_muon` is given.

    `masters`: float32 copies by name, which are stepped in place of the parameters and rounded back into them.
    """

    def __init__(self, graph: nn.Module, options: LoopOptions, masters: Mapping[str, Tensor] | None = None) -> None:
        self.options = options
        self.rates = _rates(options)
        self.parameters = {name: p for name, p in graph.named_parameters() if p.requires_grad}
        if not self.parameters:
            raise TrainingError("every learning rate is 0, so nothing would be trained; raise lr_vision, lr_connector or lr_text.")
        self.masters: dict[str, Tensor] | None = None
        if masters is not None:
            self.masters = {name: nn.Parameter(masters[name].to(p.device)) for name, p in self.parameters.items()}
        groups: dict[tuple[str, bool], list[Tensor]] = {}
        matrices: list[Tensor] = []
        for name, parameter in self.stepped.items():
            if options.lr_muon and is_layer_matrix(name, parameter):
                matrices.append(parameter)
                continue
            groups.setdefault((part_of(name), decays(name, parameter)), []).append(parameter)
        if not groups:
            raise TrainingError(
                f"lr_muon={options.lr_muon}: only matrices of layers are trained here, and AdamW is left with nothing; pass lr_muon=0."
            )
        self._parts = [part for part, _ in groups]
        self.adamw = torch.optim.AdamW(
            [
                {"params": params, "lr": self.rates[part], "weight_decay": options.weight_decay if decay else 0.0}
                for (part, decay), params in groups.items()
            ]
        )
        self.muon = torch.optim.Muon(matrices, lr=options.lr_muon, weight_decay=options.weight_decay) if matrices else None

    @staticmethod
    def freeze(graph: nn.Module, options: LoopOptions) -> None:
        """Switch off the gradients of parts whose rate is 0. What is frozen already (a LoRA's base) stays frozen."""
        rates = _rates(options)
        for name, parameter in graph.named_parameters():
            if rates[part_of(name)] == 0:
                parameter.requires_grad_(False)

    @property
    def stepped(self) -> Mapping[str, Tensor]:
        """What AdamW changes, by name: the masters where there are any, else the parameters."""
        return self.parameters if self.masters is None else self.masters

    def step(self, factor: float) -> float:
        """Clip, step at `factor` of the peak rates, drop the gradients; the gradients' norm before clipping."""
        if self.masters is not None:
            for name, parameter in self.parameters.items():
                self.masters[name].grad = None if parameter.grad is None else parameter.grad.float()
        # clip_grad_norm_ is called without clipping too: its result is the norm
        limit = self.options.max_grad_norm or math.inf
        norm = full_tensor(torch.nn.utils.clip_grad_norm_(list(self.stepped.values()), limit))
        for group, part in zip(self.adamw.param_groups, self._parts, strict=True):
            group["lr"] = self.rates[part] * factor
        self.adamw.step()
        if self.muon is not None:
            for group in self.muon.param_groups:
                group["lr"] = self.options.lr_muon * factor
            self.muon.step()
        if self.masters is not None:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(self.masters[name])
        for tensor in (*self.parameters.values(), *self.stepped.values()):
            tensor.grad = None
        return float(norm)

    def tensors(self, *, keep: bool = True) -> dict[str, Tensor]:
        """Trained weights and moments, whole and on the CPU, by name. Every process must call it; `keep` who wants it."""
        found: dict[str, Tensor] = {}
        for name, tensor in self._all():
            whole = full_tensor(tensor.detach())
            if keep:
                found[name] = whole.cpu()
        return found

    def load(self, tensors: Mapping[str, Tensor], where: str) -> None:
        """Take over what `tensors()` gave. Raises TrainingError when it belongs to other parameters."""
        matrices = set() if self.muon is None else {id(p) for p in self.muon.param_groups[0]["params"]}
        for name, parameter in self.stepped.items():
            if not any(f"{moment}.{name}" in tensors for moment in _MOMENTS):
                continue  # no gradient had reached it: a connector beside text alone
            if id(parameter) in matrices:
                self._state(parameter)["momentum_buffer"] = torch.zeros_like(parameter)
            else:
                self.adamw.state[parameter] = {
                    "step": torch.zeros(()),
                    "exp_avg": torch.zeros_like(parameter),
                    "exp_avg_sq": torch.zeros_like(parameter),
                }
        own = dict(self._all())
        if own.keys() != tensors.keys() or any(own[n].shape != tensors[n].shape for n in own):
            raise TrainingError(f"{where} was saved from other parameters than this run trains; train into another folder.")
        with torch.no_grad():
            for name, tensor in own.items():
                tensor.copy_(like_shard(tensors[name], tensor))
            if self.masters is not None:
                for name, parameter in self.parameters.items():
                    parameter.copy_(self.masters[name])

    def _all(self) -> Iterator[tuple[str, Tensor]]:
        for name, parameter in self.stepped.items():
            yield f"weights.{name}", parameter
            for moment in _MOMENTS:
                if moment in self._state(parameter):
                    yield f"{moment}.{name}", self._state(parameter)[moment]

    def _state(self, parameter: Tensor) -> dict[str, Tensor]:
        """The moments of one parameter, in the optimizer that steps it."""
        by_muon = self.muon is not None and any(parameter is p for p in self.muon.param_groups[0]["params"])
        owner: torch.optim.Optimizer = self.muon if self.muon is not None and by_muon else self.adamw
        state: dict[str, Tensor] = owner.state[parameter]
        return state


def _rates(options: LoopOptions) -> dict[str, float]:
    return {"vision": options.lr_vision, "connector": options.lr_connector, "text": options.lr_text}
