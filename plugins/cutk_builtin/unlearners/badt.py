"""Knowledge distillation from a bad teacher."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

import cutk


class Teachers(NamedTuple):
    """Whom to learn from: on S_f the bad one, elsewhere the original."""

    bad: cutk.Teacher
    original: cutk.Teacher


def teach(batch: cutk.Batch, forget: Tensor, teachers: Teachers, *, sparing: bool) -> Tensor:
    """Return whose logits each sample of ``batch`` has to learn: the bad teacher's on S_f, the original's elsewhere.

    Chundawat et al., equation 1, with l = 1 on S_f: (1 − l) · KL(T_original ‖ S) + l · KL(T_bad ‖ S).

    Args:
        batch: what the student is shown.
        forget: bool ``[B]``, which samples are in S_f.
        teachers: both of them.
        sparing: whether to show the bad teacher S_f alone, which waits for the device to tell what that is; otherwise
            it is shown the whole batch, with the same result.

    Returns:
        Float32 ``[B, classes]``.
    """
    target = teachers.original(batch)
    if not sparing:
        return torch.where(forget[:, None], teachers.bad(batch), target)
    if forget.any():
        target = target.clone()
        target[forget] = teachers.bad(cutk.Batch(*(part[forget] for part in batch)))
    return target


class BadT(cutk.Unlearner):
    r"""Learns random outputs on S_f from an untrained network, and the original's on everything else.

    Minimises KL(T_bad ‖ M) on S_f and KL(M_o ‖ M) on S_tr \ S_f, both teachers frozen and in eval mode, for ``steps``
    steps of A's own schedule over all of S_tr (paper, appendix A.2 (4)). By default the mean over the batch is divided
    by the number of classes as well (``reduction=mean``), as in both published codes, Chundawat et al.'s and the
    benchmark's, so that SGD's steps are smaller by that factor (to optimisers that scale gradients themselves it is the
    same); ``batchmean`` is the divergence itself. Costs steps · batch size / |S_tr| passes, as many forward passes of
    the original, and those of the bad teacher for S_f.
    """

    name = "badt"
    reference = "Chundawat et al., AAAI 2023; Goel et al., TMLR 2024, appendix A.2 (4)"

    class Options(cutk.Options):
        """How long, how fast, and how soft."""

        steps: int = cutk.option(1000, ge=1, help="distillation steps")
        lr: float | None = cutk.option(None, gt=0, help="peak learning rate; none: the recipe's")
        temperature: float = cutk.option(1.0, gt=0, help="temperature of the softmaxes")
        reduction: Literal["mean", "batchmean"] = cutk.option(
            "mean", help="divide the divergence by samples · classes, or by the samples alone"
        )

    def prepare(self, task: cutk.Task) -> Teachers:
        """Freeze the teachers; their outputs are computed once where samples look the same at every visit."""
        return Teachers(
            bad=cutk.Teacher(task.fresh(anew=True), task.recipe, task.train, task.identified),
            original=cutk.Teacher(task.original, task.recipe, task.train, task.retained),
        )

    def unlearn(self, task: cutk.Task, state: Teachers | None = None) -> nn.Module:
        """Return the student, which starts as the original."""
        o = self.options
        teachers = self.prepare(task) if state is None else state
        share = 1 if o.reduction == "batchmean" else task.num_classes
        marked = torch.zeros(len(task.train), dtype=torch.bool, device=task.device)
        marked[task.identified.to(task.device)] = True

        def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
            target = teach(batch, marked[batch.index], teachers, sparing=marked.is_cpu)
            return cutk.kl_divergence(logits, target, o.temperature) / share

        batches = task.train.batches(None, task.recipe.options.batch_size, shuffle=True, augment=True, steps=o.steps)
        return task.recipe.fit(task.original, batches, loss, steps=o.steps, lr=o.lr, progress=task.log.progress)

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """Its steps, with the original's forward pass; a forward pass is a third of a pass."""
        return 0.0, options.steps * sizes.batch_size / sizes.train * 4 / 3


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``badt``."""
    return [BadT]
