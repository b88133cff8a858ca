"""Seeded expansion and complementary learning."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from torch import Tensor, nn

import cutk
from cutk_builtin.looking import Outputs, alternatives, outputs
from cutk_builtin.seeded import Posterior, suspected, transition


def weighted(logits: Tensor, weight: Tensor) -> Tensor:
    """Return ``logits`` ``[B, classes]`` whose gradients, sample by sample, are ``weight`` (``[B]``) times as large.

    So a loss that is a mean over samples, whichever it is, descends as if its terms were weighted.
    """
    fixed = logits.detach()
    return fixed + weight[:, None] * (logits - fixed)


def complementary_loss(logits: Tensor, weights: Tensor) -> Tensor:
    """Return −log Σ_k W_k p_k of each sample: float32 ``[B]``, of logits and weights ``[B, classes]``.

    A weight of 0 excludes a class; each sample has a class with another one.
    """
    return torch.logsumexp(logits, 1) - torch.logsumexp(logits + weights.clamp(min=1e-12).log(), 1)


@torch.no_grad()
def shrunk(model: nn.Module, fresh: nn.Module, kept: float) -> nn.Module:
    """Return ``fresh`` with kept · θ + (1 − kept) · θ_fresh as its parameters: what ``model`` learned, faded."""
    for old, new in zip(model.parameters(), fresh.parameters(), strict=True):
        new.lerp_(old, kept)
    return fresh


class Seal(cutk.Unlearner):
    r"""Finds the rest of what is bad from the part that is known, and learns from it that its labels are wrong.

    In each round every sample gets a probability q of being manipulated: within each given label that occurs in S_f, a
    probe on the features that the classifier is given tells S_f from samples that are clean under that label, and the
    one part α that S_f is of all of S_m ties the labels' priors to each other. Then M_o is fine-tuned on all of S_tr,
    minimising (1 − q) · loss(y) − q · log Σ_k W_k p_k, where loss is A's own, and W says which classes the suspects of
    label y have instead: what M_o takes them for otherwise if that is mostly one class, else every class but y. From
    the second round on the probe sees the repaired model's features beside M_o's.

    ``final`` says what comes after the rounds: nothing (``tune``), a part of a training from the weights shrunk
    towards a new initialisation (``restart``), or a training from scratch (``retrain``), both with the last q. Knows
    nothing of the kind of manipulation: one setting for all. Costs rounds · passes passes, a forward pass for each
    round, and what comes after.
    """

    name = "seal"
    reference = "cutk"
    variant = "final"

    class Options(cutk.Options):
        """How much may be computed, and how sceptically."""

        rounds: int = cutk.option(1, ge=0, le=100, help="rounds of detection and fine-tuning")
        passes: float = cutk.option(1.0, gt=0, le=1000, help="passes over S_tr in each round")
        lr: float | None = cutk.option(None, gt=0, help="peak learning rate of the rounds; none: half the recipe's")
        final: Literal["tune", "restart", "retrain"] = cutk.option(
            "restart", help="end with the last round's model, a part of a training from faded weights, or a training"
        )
        restart_part: float = cutk.option(0.3, gt=0, le=10, help="what part of a training follows a restart")
        kept: float = cutk.option(
            0.5, ge=0, le=1, help="weight of the last round's weights in those that it starts from"
        )
        penalty: float = cutk.option(20.0, gt=0, help="of the probe's squared weights, divided by how many are bad")
        refinements: int = cutk.option(4, ge=0, le=100, help="how often the probe learns from what it found")
        threshold: float = cutk.option(0.7, ge=0, le=1, help="share from which one class is what suspects have instead")

    def prepare(self, task: cutk.Task) -> Outputs:
        """Ask the original about all samples."""
        return outputs(task.original, task.recipe, task.train)

    def unlearn(self, task: cutk.Task, state: Outputs | None = None) -> nn.Module:
        """Return the model that knows better."""
        o = self.options
        seen = self.prepare(task) if state is None else state
        lr = task.recipe.options.lr / 2 if o.lr is None else o.lr
        steps = _steps(task, o.passes)
        model = task.original
        current: Outputs | None = None
        weights: Tensor | None = None
        for done in range(o.rounds):
            probability = self._suspicion(task, seen, current)
            weights = self._transition(task, seen, probability) if weights is None else weights
            loss = self._loss(task, probability, weights)
            model = self._fit(task, copy.deepcopy(task.original), loss, steps, lr)
            task.log.progress(done + 1, o.rounds + (o.final != "tune"))
            if done + 1 < o.rounds or o.final != "tune":
                current = outputs(model, task.recipe, task.train)
        if o.final == "tune":
            return model
        probability = self._suspicion(task, seen, current)
        weights = self._transition(task, seen, probability) if weights is None else weights
        loss = self._loss(task, probability, weights, settled_alone=True)
        if o.final == "retrain":
            return task.retrain(torch.arange(len(task.train)), loss=loss)
        steps = max(1, round(o.restart_part * task.recipe.options.steps))
        return self._fit(task, shrunk(model, task.fresh(), o.kept), loss, steps, None)

    def _transition(self, task: cutk.Task, seen: Outputs, suspicion: Tensor) -> Tensor:
        labels = task.train.labels.to(seen.logits.device)
        return transition(
            *(alternatives(seen.logits, labels), labels, suspicion, task.num_classes, self.options.threshold)
        )

    def _suspicion(self, task: cutk.Task, seen: Outputs, current: Outputs | None) -> Tensor:
        """Return q, float32 ``[N]``."""
        o, views = self.options, [seen] if current is None else [seen, current]
        found = suspected(task, views, o.penalty, o.refinements)
        _report(task, found)
        return found.probability

    def _fit(self, task: cutk.Task, model: nn.Module, loss: cutk.Loss, steps: int, lr: float | None) -> nn.Module:
        batches = task.train.batches(None, task.recipe.options.batch_size, shuffle=True, augment=True, steps=steps)
        return task.recipe.fit(model, batches, loss, steps=steps, lr=lr)

    def _loss(self, task: cutk.Task, probability: Tensor, weights: Tensor, *, settled_alone: bool = False) -> cutk.Loss:
        """Return step 4's loss; with ``settled_alone`` suspects whose class is open count for nothing.

        From M_o, which knows what they look like else, they find their class; from faded weights they would be driven
        anywhere.
        """
        q, w = probability.to(task.device), weights.to(task.device)
        settled = (w.sum(1) < max(task.num_classes - 1, 2)).float()  # of two classes the other one is meant

        def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
            suspect = q[batch.index]
            complement = complementary_loss(logits, w[batch.y])
            if settled_alone:
                complement = complement * settled[batch.y]
            return task.recipe.loss(weighted(logits, 1 - suspect), batch) + (suspect * complement).mean()

        return loss

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """One forward pass for the original, then its rounds; a forward pass is a third of a pass."""
        training = sizes.steps * sizes.batch_size / sizes.train
        after = {"tune": 0.0, "restart": options.restart_part, "retrain": 1.0}[options.final] * training
        asked = max(0, options.rounds - (options.final == "tune"))
        return 1 / 3, options.rounds * options.passes + asked / 3 + after


def _steps(task: cutk.Task, passes: float) -> int:
    return max(1, round(passes * len(task.train) / min(task.recipe.options.batch_size, len(task.train))))


def _report(task: cutk.Task, found: Posterior) -> None:
    task.log.suspicion(found.probability)
    task.log.scalar("known_part", found.alpha)
    task.log.scalar("mean_suspicion", found.probability.mean())
    for label, prior in found.priors.items():
        task.log.scalar(f"prior_{label}", prior)


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``seal``."""
    return [Seal]
