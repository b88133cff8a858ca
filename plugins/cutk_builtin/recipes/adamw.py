"""AdamW on a cosine."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

import cutk


def cosine_rate(step: int, steps: int, warmup: float = 0.05) -> float:
    """Return the learning rate of a step, counted from 0, as a factor on its peak.

    With ``w = int(warmup · steps)``, the factor is ``(step + 1) / (w + 1)`` before step ``w`` and
    ``½ · (1 + cos(π · (step − w) / (steps − w)))`` from there on (Loshchilov & Hutter, SGDR, ICLR 2017, equation 5,
    for one period down to zero).

    >>> [round(cosine_rate(s, 4, warmup=0.25), 3) for s in range(4)]
    [0.5, 1.0, 0.75, 0.25]
    """
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / (steps - rising)))


class AdamW(cutk.Recipe):
    """AdamW, its rate falling along a cosine after a warm-up; weights of one dimension aren't decayed."""

    name = "adamw"
    reference = "Loshchilov & Hutter, Decoupled Weight Decay Regularization, ICLR 2019, algorithm 2"

    class Options(cutk.RecipeOptions):
        """How far and how fast."""

        lr: float = cutk.option(1e-3, gt=0, help="peak learning rate")
        weight_decay: float = cutk.option(0.01, ge=0, help="decoupled weight decay of weights and kernels")
        beta1: float = cutk.option(0.9, ge=0, lt=1, help="decay of the gradient's running mean")
        beta2: float = cutk.option(0.999, ge=0, lt=1, help="decay of the squared gradient's running mean")
        warmup: float = cutk.option(0.05, ge=0, lt=1, help="fraction of the steps over which the rate rises")

    def optimisers(self, parameters: Mapping[str, nn.Parameter], lr: float) -> list[torch.optim.Optimizer]:
        """Return AdamW; biases and the parameters of normalisations are left without decay, as is usual."""
        o = self.options
        several = [p for p in parameters.values() if p.ndim >= 2]
        single = [p for p in parameters.values() if p.ndim < 2]
        groups = [{"params": several, "weight_decay": o.weight_decay}, {"params": single, "weight_decay": 0.0}]
        return [torch.optim.AdamW([g for g in groups if g["params"]], lr=lr, betas=(o.beta1, o.beta2))]

    def rate(self, step: int, steps: int) -> float:
        """Return the cosine's factor."""
        return cosine_rate(step, steps, self.options.warmup)


@cutk.hookimpl
def cutk_recipes() -> list[type[cutk.Recipe]]:
    """Provide ``adamw``."""
    return [AdamW]
