"""SCRUB: steps away from S_f, alternating with steps that keep what is known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

from torch import Tensor, nn

import cutk

ForgetLoss = Literal["task", "task-and-distillation", "distillation"]
# How many times as slow as the training.
SLOWER = 10


def schedule(steps: int, forget_steps: int, forget_run: int = 1, preserve_run: int = 1) -> list[bool]:
    """Say for each step whether it is a forget step.

    Runs of ``forget_run`` forget steps and ``preserve_run`` preserve steps alternate, forget first. A run of forget
    steps begins only while fewer than ``forget_steps`` steps are done, and goes on to its end; from then on all are
    preserve steps. Of each run at least one step is made.

    >>> schedule(6, 3)
    [True, False, True, False, False, False]
    >>> schedule(6, 3, forget_run=2, preserve_run=2)
    [True, True, False, False, False, False]
    """
    plan: list[bool] = []
    while len(plan) < steps:
        if len(plan) < forget_steps:
            plan += [True] * max(1, forget_run)
        plan += [False] * max(1, preserve_run)
    return plan[:steps]


def preserve_loss(logits: Tensor, teacher: Tensor, batch: cutk.Batch, weight: float, temperature: float) -> Tensor:
    """Return CE(labels, M) + weight · T² · KL(M_o ‖ M) with softmaxes at temperature T."""
    return cutk.cross_entropy(logits, batch) + weight * cutk.kl_divergence(logits, teacher, temperature)


class Scrub(cutk.Unlearner):
    r"""Climbs the loss on S_f in the first steps, and distils the original on S_tr \ S_f in between and after.

    A forget step ascends a loss on a batch of S_f, a preserve step descends CE + α · KL(M_o ‖ M) on a batch of
    S_tr \ S_f, with CE against the given labels (paper, appendix A.2 (5)), unsmoothed whatever A's loss is. The
    publications differ in two points, each an option whose default is the code published with the benchmark:

    - ``alternate``: ``pass`` goes once through all of S_f, then once through the rest, and so on, as both published
      codes do; that makes few forget steps, since most of a round is the rest. ``step`` changes with every step, which
      is how the paper's text can be read, and makes half of the first ``forget_steps`` forget steps. ``scrub:step``
      names this variant, so that one plan can hold both.
    - ``forget_loss``: ``task-and-distillation`` climbs CE + α · KL, as the code published with the benchmark does;
      ``task`` climbs CE alone, as the paper's appendix says; ``distillation`` climbs KL alone, as Kurmanji et al. and
      the paper's section 3.2 do.

    The learning rate is a tenth of the training's: the paper's 0.0025 is that of the 0.025 with which its code trains,
    and a number alone would mean something else for every optimiser.

    Costs steps · batch size / |S_tr| passes, and the teacher's forward passes.
    """

    name = "scrub"
    reference = "Kurmanji et al., NeurIPS 2023; Goel et al., TMLR 2024, appendix A.2 (5)"
    variant = "alternate"

    class Options(cutk.Options):
        """How long, how fast, and how the two aims are weighed."""

        distillation_weight: float = cutk.option(0.5, ge=0, help="α: weight of the distillation term")
        steps: int = cutk.option(1000, ge=1, help="steps, of both kinds together")
        forget_steps: int = cutk.option(200, ge=0, help="forget steps begin among the first so many steps")
        lr: float | None = cutk.option(None, gt=0, help="peak learning rate; none: a tenth of the recipe's")
        temperature: float = cutk.option(4.0, gt=0, help="temperature of the distillation's softmaxes")
        alternate: Literal["pass", "step"] = cutk.option(
            "pass", help="kinds change after whole passes over S_f and over the rest, or with every step"
        )
        forget_loss: ForgetLoss = cutk.option(
            "task-and-distillation", help="what a forget step climbs: CE + α · KL, or either alone (KL without α)"
        )

    grid = {"distillation_weight": [0.001, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0]}

    def prepare(self, task: cutk.Task) -> cutk.Teacher:
        """Freeze the teacher; its outputs are computed once where samples look the same at every visit."""
        return cutk.Teacher(task.original, task.recipe, task.train)

    def unlearn(self, task: cutk.Task, state: cutk.Teacher | None = None) -> nn.Module:
        """Return the student, which starts as the original."""
        o = self.options
        if len(task.retained) == 0:
            raise cutk.CellError("SCRUB keeps what the rest of the training set says, and there is no rest.")
        teacher = self.prepare(task) if state is None else state
        size = task.recipe.options.batch_size
        runs = (1, 1)
        if o.alternate == "pass":
            runs = (_batches_in(task.identified, size), _batches_in(task.retained, size))
        kinds = schedule(o.steps, o.forget_steps, *runs)
        now = iter(kinds)  # the loss is asked once for each batch, in their order

        def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
            if not next(now):
                return preserve_loss(logits, teacher(batch), batch, o.distillation_weight, o.temperature)
            if o.forget_loss == "task":
                return -cutk.cross_entropy(logits, batch)
            if o.forget_loss == "distillation":
                return -cutk.kl_divergence(logits, teacher(batch), o.temperature)
            return -preserve_loss(logits, teacher(batch), batch, o.distillation_weight, o.temperature)

        batches = _interleaved(task, kinds, size)
        lr = task.recipe.options.lr / SLOWER if o.lr is None else o.lr
        return task.recipe.fit(task.original, batches, loss, steps=o.steps, lr=lr, progress=task.log.progress)

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """Its steps and the teacher's forward passes; a forward pass is a third of a pass."""
        return 0.0, options.steps * sizes.batch_size / sizes.train * 4 / 3


def _batches_in(indices: Tensor, size: int) -> int:
    """Count the batches of one pass: all of them full, the last one with samples of the next pass."""
    return -(-len(indices) // size)


def _interleaved(task: cutk.Task, kinds: Sequence[bool], size: int) -> Iterator[cutk.Batch]:
    """Yield a batch of S_f for each forget step and one of the rest for each preserve step."""
    sources = {
        kind: task.train.batches(indices, size, shuffle=True, augment=True, steps=kinds.count(kind))
        for kind, indices in ((True, task.identified), (False, task.retained))
        if kind in kinds
    }
    for kind in kinds:
        yield next(sources[kind])


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``scrub``."""
    return [Scrub]
