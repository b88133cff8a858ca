"""Gradient ascent on the identified samples."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import cutk


def negative_cross_entropy(logits: Tensor, batch: cutk.Batch) -> Tensor:
    """Return minus the task loss, so that descending it ascends the task loss."""
    return -cutk.cross_entropy(logits, batch)


class NegativeGradient(cutk.Unlearner):
    """Ascends the task loss on S_f for a few steps: cheap, and easily overdone."""

    name = "negative-gradient"
    reference = "Golatkar et al., Eternal Sunshine of the Spotless Net, CVPR 2020 (as NegGrad)"

    class Options(cutk.Options):
        """How far to ascend."""

        steps: int = cutk.option(20, ge=1, help="ascent steps")
        lr: float = cutk.option(1e-3, gt=0, help="learning rate")
        batch_size: int = cutk.option(64, ge=1, help="samples of S_f per step")

    grid = {"lr": [1e-4, 1e-3, 1e-2]}

    def unlearn(self, task: cutk.Task, state: Any = None) -> nn.Module:
        """Return the original, moved away from S_f."""
        o = self.options
        batches = task.train.batches(task.identified, o.batch_size, shuffle=True, augment=True, steps=o.steps)
        return task.recipe.fit(task.original, batches, negative_cross_entropy, steps=o.steps, lr=o.lr)

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """A few batches of S_f."""
        return 0.0, options.steps * min(options.batch_size, sizes.identified) / sizes.train


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``negative-gradient``."""
    return [NegativeGradient]
