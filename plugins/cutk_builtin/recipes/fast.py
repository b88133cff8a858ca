"""Muon for the filters and Nesterov's momentum for the rest: CIFAR-10 in a few passes on a laptop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

import cutk

# The quintic of Jordan's Muon: its slope at zero is as steep as it gets while all singular values end up near 1.
QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalised(matrix: Tensor, steps: int = 3, eps: float = 1e-7) -> Tensor:
    """Return ``matrix`` with its singular values moved towards 1 by Newton–Schulz steps, its singular vectors kept.

    Each step maps ``X`` to ``a X + b (X Xᵀ) X + c (X Xᵀ)² X``, starting from ``X = matrix / ‖matrix‖``.

    Args:
        matrix: float32 ``[m, n]``.
        steps: how many.
        eps: keeps a matrix of zeros one.
    """
    a, b, c = QUINTIC
    wide = matrix if len(matrix) <= matrix.shape[1] else matrix.T
    x = wide / (wide.norm() + eps)
    for _ in range(steps):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x if wide is matrix else x.T


class Muon(torch.optim.Optimizer):
    """Momentum whose every step is orthogonalised; filters are scaled back to one norm before it.

    Args:
        params: of two dimensions or more; the first counts the filters.
        lr: how far each step moves every singular direction of a kernel whose filters have norm 1.
        momentum: Nesterov's.
    """

    def __init__(self, params: Iterable[Any], lr: float, momentum: float = 0.6) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """Take a step."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if not state:
                    state["momentum"] = torch.zeros_like(kernel)
                mean = state["momentum"]
                mean.mul_(group["momentum"]).add_(kernel.grad)
                ahead = kernel.grad.add(mean, alpha=group["momentum"])
                kernel.mul_(math.sqrt(len(kernel)) / kernel.norm())
                kernel.sub_(orthogonalised(ahead.flatten(1)).view_as(kernel), alpha=group["lr"])


class Fast(cutk.Recipe):
    """Muon for kernels of convolutions and AdamW for the rest, on a linear schedule, with smoothed labels."""

    name = "fast"
    reference = "Jordan, 94% on CIFAR-10 in 3.29 Seconds on a Single GPU, arXiv 2404.00498; Jordan et al., Muon, 2024"

    class Options(cutk.RecipeOptions):
        """How far and how fast; the defaults are eight passes over CIFAR-10's training set."""

        steps: int = cutk.option(760, ge=1, le=10**9, help="training steps, one batch each")
        batch_size: int = cutk.option(500, ge=1, help="samples per step")
        lr: float = cutk.option(0.12, gt=0, help="peak learning rate of Muon")
        rest_lr: float = cutk.option(0.02, gt=0, help="peak learning rate of AdamW, which trains all but the kernels")
        momentum: float = cutk.option(0.6, ge=0, lt=1, help="Muon's momentum")
        smoothing: float = cutk.option(0.2, ge=0, lt=1, help="label smoothing")
        crop_padding: int = cutk.option(2, ge=0, help="by how many pixels an image is shifted at most; 0: not at all")

        @property
        def augmentation(self) -> cutk.Augmentation:
            """Shifts that show the image mirrored at its border, and flips in every other pass."""
            return cutk.Augmentation(self.crop_padding, self.flip, border="reflect", alternate=True)

    def loss(self, logits: Tensor, batch: cutk.Batch) -> Tensor:
        """Return the mean cross-entropy against smoothed labels."""
        return nn.functional.cross_entropy(logits, batch.y, label_smoothing=self.options.smoothing)

    def optimisers(self, parameters: Mapping[str, nn.Parameter], lr: float) -> list[torch.optim.Optimizer]:
        """Return Muon for what has four dimensions, and AdamW."""
        o = self.options
        kernels = [p for p in parameters.values() if p.ndim == 4]
        rest = [p for p in parameters.values() if p.ndim != 4]
        found: list[torch.optim.Optimizer] = []
        if kernels:
            found.append(Muon(kernels, lr, o.momentum))
        if rest:
            found.append(torch.optim.AdamW(rest, lr=lr * o.rest_lr / o.lr, betas=(0.85, 0.95), weight_decay=0.0))
        return found

    def rate(self, step: int, steps: int) -> float:
        """Return the linear schedule's factor, from 1 down to nearly 0."""
        return 1 - step / steps


@cutk.hookimpl
def cutk_recipes() -> list[type[cutk.Recipe]]:
    """Provide ``fast``."""
    return [Fast]
