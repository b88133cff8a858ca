"""Catastrophic Forgetting."""

from __future__ import annotations

from typing import Any

from torch import nn

import cutk


class CF(cutk.Unlearner):
    r"""Fine-tunes the original on S_tr without S_f, and lets it forget the rest.

    M_u = A(M_o, S_tr \ S_f) for ``steps`` steps of A's own schedule (paper, appendix A.2 (2)), all layers or the last
    k alone (CF-k of Goel et al., 2023). Costs steps · batch size / |S_tr| passes.
    """

    name = "cf"
    reference = "Goel et al., 2023 (CF-k); Goel et al., TMLR 2024, appendix A.2 (2)"

    class Options(cutk.Options):
        """How long, how fast, and how deep."""

        steps: int = cutk.option(1000, ge=1, help="fine-tuning steps")
        lr: float | None = cutk.option(None, gt=0, help="peak learning rate; none: the recipe's")
        last_layers: int | None = cutk.option(None, ge=1, help="train the last so many layers alone; none: all")

    def unlearn(self, task: cutk.Task, state: Any = None) -> nn.Module:
        """Return the fine-tuned model."""
        o = self.options
        return task.recipe.train(
            task.original,
            task.train,
            task.retained,
            steps=o.steps,
            lr=o.lr,
            modules=None if o.last_layers is None else cutk.last_layers(task.original, o.last_layers),
            progress=task.log.progress,
        )

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """Its steps."""
        return 0.0, options.steps * sizes.batch_size / sizes.train


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``cf``."""
    return [CF]
