"""NegGrad+: descending on what is kept, climbing on S_f."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import cutk
from cutk_builtin.mixing import mixed

# How much of a batch is S_f.
SHARE = 0.5


def mean_of(values: Tensor, part: Tensor) -> Tensor:
    """Return the mean of values ``[B]`` where ``part``, 0 or 1, is 1; unlike an index it waits for no device."""
    return (values * part).sum() / part.sum()


def balanced_loss(logits: Tensor, batch: cutk.Batch, forget: Tensor, retain_weight: float, climb: Tensor) -> Tensor:
    """Return β · CE over what is kept − (1 − β) · CE over S_f, the second term where ``climb`` is 1.

    Args:
        logits: float32 ``[B, classes]``.
        batch: the samples, with given labels; some are in S_f and some aren't.
        forget: float32 ``[B]``, 1 for those in S_f and 0 for the others.
        retain_weight: β.
        climb: 0 or 1.
    """
    each = nn.functional.cross_entropy(logits, batch.y, reduction="none")
    kept, forgotten = mean_of(each, 1 - forget), mean_of(each, forget)
    return retain_weight * kept - (1 - retain_weight) * climb * forgotten


class NegGradPlus(cutk.Unlearner):
    r"""Fine-tunes on S_tr without S_f and climbs the loss on S_f at once, weighed against each other.

    Minimises β · CE(S_tr \ S_f) − (1 − β) · CE(S_f) against the given labels for ``steps`` steps of A's own schedule,
    each on one batch of which half is S_f, or all of it if it is smaller. A step leaves the second term out where no
    more than ``forget_accuracy`` of its samples of S_f are still predicted as labelled: cross-entropy has no upper
    bound, and what is already forgotten would go on to push everything else away. As published it never stops
    (``forget_accuracy=none``). CE is unsmoothed whatever A's loss is. The grid holds the publication's two β, for small
    data and for large, and the powers of ten between. Costs steps · batch size / |S_tr| passes.
    """

    name = "neggrad-plus"
    reference = "Kurmanji et al., NeurIPS 2023 (SCRUB), as the baseline NegGrad+; the floor: REM, arXiv 2505.17730"

    class Options(cutk.Options):
        """How long, how fast, how the two aims are weighed, and when S_f is forgotten."""

        retain_weight: float = cutk.option(0.95, ge=0, le=1, help="β: weight of the loss on what is kept; S_f's: 1 − β")
        steps: int = cutk.option(1000, ge=1, help="fine-tuning steps")
        lr: float | None = cutk.option(None, gt=0, help="peak learning rate; none: the recipe's")
        forget_accuracy: float | None = cutk.option(
            0.2, ge=0, lt=1, help="climb while more than this part of S_f is predicted as labelled; none: always"
        )

    grid = {"retain_weight": [0.95, 0.99, 0.999, 0.9999]}

    def unlearn(self, task: cutk.Task, state: Any = None) -> nn.Module:
        """Return the fine-tuned model."""
        o = self.options
        if len(task.retained) == 0:
            raise cutk.CellError("NegGrad+ weighs S_f against the rest of the training set, and there is no rest.")
        marked = torch.zeros(len(task.train), device=task.device)
        marked[task.identified.to(task.device)] = 1.0

        def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
            forget = marked[batch.index]
            right = mean_of((logits.argmax(1) == batch.y).float(), forget)
            climb = torch.ones_like(right) if o.forget_accuracy is None else (right > o.forget_accuracy).float()
            return balanced_loss(logits, batch, forget, o.retain_weight, climb)

        return task.recipe.fit(
            task.original, mixed(task, o.steps, SHARE), loss, steps=o.steps, lr=o.lr, progress=task.log.progress
        )

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """Its steps."""
        return 0.0, options.steps * sizes.batch_size / sizes.train


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``neggrad-plus``."""
    return [NegGradPlus]
