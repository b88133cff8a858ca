"""Relabelling: the first thing that practitioners try."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

import cutk
from cutk_builtin.looking import alternatives
from cutk_builtin.mixing import mixed


class Relabel(cutk.Unlearner):
    r"""Gives S_f the model's best other class, and fine-tunes on all of S_tr with these labels.

    What is optimised, and its schedule, are A's. ``share`` of each batch is S_f, or all of it if that is less, so that
    few known samples weigh more than so few others would; with 0 each sample weighs as any other. Costs
    steps · batch size / |S_tr| passes.
    """

    name = "relabel"
    reference = "Common practice; the labels are those of Graves et al., AAAI 2021, but for their being the best guess"

    class Options(cutk.Options):
        """How long, how fast, and how much S_f weighs."""

        steps: int = cutk.option(1000, ge=1, help="fine-tuning steps")
        lr: float | None = cutk.option(None, gt=0, help="peak learning rate; none: the recipe's")
        share: float = cutk.option(0.0, ge=0, lt=1, help="part of a batch that is S_f; 0: as much as of S_tr")

    grid = {"share": [0.0, 0.1, 0.5]}

    def unlearn(self, task: cutk.Task, state: Any = None) -> nn.Module:
        """Return the fine-tuned model."""
        o, train, known = self.options, task.train, task.identified.cpu()
        labels = train.labels.cpu().clone()
        labels[known] = alternatives(task.recipe.logits(task.original, train, known), labels[known])
        labels = labels.to(task.device)

        def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
            return task.recipe.loss(logits, batch._replace(y=labels[batch.index]))

        batches = (
            mixed(task, o.steps, o.share)
            if o.share and len(task.retained)
            else train.batches(None, task.recipe.options.batch_size, shuffle=True, augment=True, steps=o.steps)
        )
        return task.recipe.fit(task.original, batches, loss, steps=o.steps, lr=o.lr, progress=task.log.progress)

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """Its steps, and a look at S_f."""
        return 0.0, (options.steps * sizes.batch_size + sizes.identified / 3) / sizes.train


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``relabel``."""
    return [Relabel]
