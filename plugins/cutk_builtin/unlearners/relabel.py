"""Relabelling: the first thing that practitioners try."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import cutk
from cutk_builtin.looking import alternatives


class Relabel(cutk.Unlearner):
    r"""Gives S_f the model's best other class, and fine-tunes on all of S_tr with these labels.

    What is optimised, and its schedule, are A's; each sample of S_f weighs as any other. Costs
    steps · batch size / |S_tr| passes.
    """

    name = "relabel"
    reference = "Common practice; the labels are those of Graves et al., AAAI 2021, but for their being the best guess"

    class Options(cutk.Options):
        """How long, and how fast."""

        steps: int = cutk.option(1000, ge=1, help="fine-tuning steps")
        lr: float | None = cutk.option(None, gt=0, help="peak learning rate; none: the recipe's")

    def unlearn(self, task: cutk.Task, state: Any = None) -> nn.Module:
        """Return the fine-tuned model."""
        o, train, known = self.options, task.train, task.identified.cpu()
        labels = train.labels.cpu().clone()
        labels[known] = alternatives(task.recipe.logits(task.original, train, known), labels[known])
        labels = labels.to(task.device)

        def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
            return task.recipe.loss(logits, batch._replace(y=labels[batch.index]))

        return task.recipe.train(task.original, train, loss=loss, steps=o.steps, lr=o.lr, progress=task.log.progress)

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """Its steps, and a look at S_f."""
        return 0.0, (options.steps * sizes.batch_size + sizes.identified / 3) / sizes.train


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``relabel``."""
    return [Relabel]
