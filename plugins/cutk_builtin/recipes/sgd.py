"""SGD on a linear schedule: how the paper trains."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

import cutk


def linear_rate(step: int, steps: int, t_mult: float = 1.25, warmup: float = 0.01) -> float:
    """Return the learning rate of a step, counted from 0, as a factor on its peak.

    With ``w = int(warmup · steps)`` and ``T = t_mult · steps``, the factor is ``(step + 1) / (w + 1)`` before step
    ``w`` and ``1 − (step − w) / T`` from there on. The paper (appendix A.1) gives ``t_mult`` and the warm-up; what T is
    and where the decay starts it leaves open, and this is what its published code does.

    >>> [round(linear_rate(s, 4, warmup=0.25), 3) for s in range(4)]
    [0.5, 1.0, 0.8, 0.6]
    """
    rising = int(warmup * steps)
    if step < rising:
        return (step + 1) / (rising + 1)
    return 1 - (step - rising) / (t_mult * steps)


class Sgd(cutk.Recipe):
    """SGD with momentum on a linear schedule with a warm-up; the defaults are the paper's for CIFAR-10."""

    name = "sgd"
    reference = "Goel et al., TMLR 2024, appendix A.1"

    class Options(cutk.RecipeOptions):
        """How far and how fast."""

        momentum: float = cutk.option(0.9, ge=0, lt=1, help="SGD momentum")
        weight_decay: float = cutk.option(5e-4, ge=0, help="L2 penalty")
        t_mult: float = cutk.option(1.25, ge=1, help="the linear decay would reach zero t_mult · steps after the peak")
        warmup: float = cutk.option(0.01, ge=0, lt=1, help="fraction of the steps over which the rate rises")

    def optimisers(self, parameters: Mapping[str, nn.Parameter], lr: float) -> list[torch.optim.Optimizer]:
        """Return SGD."""
        o = self.options
        return [torch.optim.SGD(parameters.values(), lr=lr, momentum=o.momentum, weight_decay=o.weight_decay)]

    def rate(self, step: int, steps: int) -> float:
        """Return the linear schedule's factor."""
        return linear_rate(step, steps, self.options.t_mult, self.options.warmup)


@cutk.hookimpl
def cutk_recipes() -> list[type[cutk.Recipe]]:
    """Provide ``sgd``."""
    return [Sgd]
