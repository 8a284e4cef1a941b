"""bfloat16 parameters with float32 masters; Muon for matrices, AdamW for the rest.

Pure bfloat16 with masters ran 2.7 times as fast as float32 on the CPU that nano was first trained on; autocast lost a
third of that to casts.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn


class MasterOptimizer:
    """Steps float32 copies of the parameters and rounds them back. `fraction` 0..1 drives warm-up and cosine decay."""

    def __init__(self, named: Iterable[tuple[str, nn.Parameter]], *, lr: float, muon_lr: float,
                 weight_decay: float = 0.01, warmup: float = 0.01, final: float = 0.03) -> None:  # fmt: skip
        self.params = [(name, p) for name, p in named if p.requires_grad]
        self.masters = [nn.Parameter(p.detach().float().clone()) for _, p in self.params]
        matrices: list[nn.Parameter] = []
        others: list[nn.Parameter] = []
        for (name, _), master in zip(self.params, self.masters, strict=True):
            hidden = master.ndim == 2 and ("layers." in name or "modality_projection" in name)
            (matrices if hidden and muon_lr else others).append(master)
        self.warmup, self.final = warmup, final
        self.optimizers: list[torch.optim.Optimizer] = [
            torch.optim.AdamW(others, lr=lr, betas=(0.9, 0.95), weight_decay=weight_decay, foreach=True)
        ]
        if matrices:
            self.optimizers.append(torch.optim.Muon(matrices, lr=muon_lr, weight_decay=weight_decay, momentum=0.95))
        self.base = [[group["lr"] for group in optimizer.param_groups] for optimizer in self.optimizers]

    def step(self, fraction: float, clip: float = 1.0) -> float:
        """One step from the gradients that the parameters hold; returns the gradients' norm before clipping."""
        for (_, p), master in zip(self.params, self.masters, strict=True):
            master.grad = None if p.grad is None else p.grad.float()
            p.grad = None
        norm = float(nn.utils.clip_grad_norm_(self.masters, clip))
        for optimizer, base in zip(self.optimizers, self.base, strict=True):
            for group, lr in zip(optimizer.param_groups, base, strict=True):
                group["lr"] = lr * self._factor(fraction)
            optimizer.step()
        with torch.no_grad():
            for (_, p), master in zip(self.params, self.masters, strict=True):
                p.copy_(master)
        return norm

    def _factor(self, fraction: float) -> float:
        if fraction < self.warmup:
            return fraction / self.warmup
        done = (fraction - self.warmup) / (1 - self.warmup)
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))

    def state(self) -> dict[str, Tensor]:
        """Masters and moments, by name, for a safetensors file."""
        tensors = {f"master.{name}": m.detach() for (name, _), m in zip(self.params, self.masters, strict=True)}
        names = {id(m): name for (name, _), m in zip(self.params, self.masters, strict=True)}
        for optimizer in self.optimizers:
            for master, state in optimizer.state.items():
                tensors |= {f"{key}.{names[id(master)]}": torch.as_tensor(value) for key, value in state.items()}
        return tensors

    def load(self, tensors: dict[str, Tensor]) -> None:
        """The reverse of `state`."""
        kinds = ("exp_avg_sq", "exp_avg", "momentum_buffer", "step")
        with torch.no_grad():
            for (name, p), master in zip(self.params, self.masters, strict=True):
                master.copy_(tensors[f"master.{name}"])
                p.copy_(master)
                for optimizer in self.optimizers:
                    if any(master is q for group in optimizer.param_groups for q in group["params"]):
                        optimizer.state[master] = {
                            k: tensors[f"{k}.{name}"].clone() for k in kinds if f"{k}.{name}" in tensors
                        }
