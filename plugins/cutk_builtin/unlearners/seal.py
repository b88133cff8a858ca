"""Seeded expansion and complementary learning."""

from __future__ import annotations

import copy
import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

import cutk
from cutk_builtin.seeded import Outputs, Posterior, alternatives, outputs, posterior, transition


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


def informed(logits: Tensor, labels: Tensor) -> Tensor:
    """Say whether the given label is likelier than by chance: float32 ``[B]``, 1 or 0."""
    chance = math.log(logits.shape[1])
    given = torch.log_softmax(logits.detach(), 1).gather(1, labels[:, None]).flatten()
    return (given > -chance).float()


OpenLabel = Literal["another", "below-chance", "nothing"]


class Seal(cutk.Unlearner):
    r"""Finds the rest of what is bad from the part that is known, and learns from it that its labels are wrong.

    In each round every sample gets a probability q of being manipulated: within each given label that occurs in S_f, a
    probe on the features that the classifier is given tells S_f from samples that are clean under that label, and the
    one part α that S_f is of all of S_m ties the labels' priors to each other. Then M_o is fine-tuned on all of S_tr,
    minimising (1 − q) · loss(y) − q · log Σ_k W_k p_k, where loss is A's own, and W says which classes S_f of label y
    has instead: what M_o takes it for otherwise if that is mostly one class, else every class but y. From the second
    round on the probe sees the repaired model's features beside M_o's.

    ``final=retrain`` goes on to train from scratch with the last q. Knows nothing of the kind of manipulation: one
    setting for all. Costs rounds · passes passes, as many forward passes as there are rounds, and 1, and a training.
    """

    name = "seal"
    reference = "cutk"
    variant = "final"

    class Options(cutk.Options):
        """How much may be computed, and how sceptically."""

        rounds: int = cutk.option(3, ge=1, le=100, help="rounds of detection and fine-tuning")
        passes: float = cutk.option(1.0, gt=0, le=1000, help="passes over S_tr in each round")
        lr: float | None = cutk.option(None, gt=0, help="peak learning rate of fine-tuning; none: half the recipe's")
        final: Literal["tune", "retrain"] = cutk.option(
            "tune", help="end with the last round's model, or train one from scratch with the last probabilities"
        )
        start: Literal["original", "current"] = cutk.option(
            "original", help="what each round fine-tunes: the original, or the last round's model"
        )
        keep: Literal["recipe", "cross-entropy"] = cutk.option(
            "recipe", help="what is minimised where the label is right: the recipe's loss, or cross-entropy"
        )
        penalty: float = cutk.option(
            20.0, gt=0, help="of the probe's squared weights, divided by the number of bad ones"
        )
        refinements: int = cutk.option(4, ge=0, le=100, help="how often the probe learns from what it found")
        open_label: OpenLabel = cutk.option(
            "below-chance",
            help="what a suspect learns whose class S_f leaves open: that it isn't the given one, that "
            "the given one is no likelier than by chance, or nothing",
        )
        open_final: OpenLabel = cutk.option("nothing", help="the same in the final training")
        memory: float = cutk.option(0.0, ge=0, lt=1, help="weight of the last round's probabilities in this round's")
        threshold: float = cutk.option(0.7, ge=0, le=1, help="share from which one class is what S_f has instead")

    def prepare(self, task: cutk.Task) -> Outputs:
        """Ask the original about all samples."""
        return outputs(task.original, task.recipe, task.train)

    def unlearn(self, task: cutk.Task, state: Outputs | None = None) -> nn.Module:
        """Return the model that knows better."""
        o = self.options
        seen = self.prepare(task) if state is None else state
        labels, known = task.train.labels.cpu(), task.identified.cpu()
        weights = transition(
            alternatives(seen.logits[known.to(seen.logits.device)], labels[known].to(seen.logits.device)),
            labels[known],
            task.num_classes,
            o.threshold,
        )
        lr = task.recipe.options.lr / 2 if o.lr is None else o.lr
        size = task.recipe.options.batch_size
        steps = max(1, round(o.passes * len(task.train) / min(size, len(task.train))))
        model, current = task.original, seen
        original = copy.deepcopy(task.original) if o.start == "original" else task.original
        probability: Tensor | None = None
        for done in range(o.rounds):
            found = self._posterior(task, seen, current, first=done == 0)
            _report(task, found)
            q = found.probability
            probability = q if probability is None else o.memory * probability + (1 - o.memory) * q
            loss = self._loss(task, probability, weights, o.open_label)
            if o.start == "original":
                model = copy.deepcopy(original)
            batches = task.train.batches(None, size, shuffle=True, augment=True, steps=steps)
            task.recipe.fit(model, batches, loss, steps=steps, lr=lr)
            task.log.progress(done + 1, o.rounds + (o.final == "retrain"))
            if done + 1 < o.rounds or o.final == "retrain":
                current = outputs(model, task.recipe, task.train)
        if o.final == "tune":
            return model
        found = self._posterior(task, seen, current, first=False)
        _report(task, found)
        q = found.probability if probability is None else o.memory * probability + (1 - o.memory) * found.probability
        return task.retrain(torch.arange(len(task.train)), loss=self._loss(task, q, weights, o.open_final))

    def _posterior(self, task: cutk.Task, seen: Outputs, current: Outputs, *, first: bool) -> Posterior:
        views = [seen.features] if first else [seen.features, current.features]
        features = torch.cat([nn.functional.normalize(view, dim=1) for view in views], 1)
        labels, known = task.train.labels.cpu(), task.identified.cpu()
        place = known.to(current.logits.device)
        other = alternatives(current.logits[place], labels[known].to(current.logits.device)).cpu()
        o = self.options
        return posterior(
            *(features, labels, known, other, task.generator), penalty=o.penalty, refinements=o.refinements
        )

    def _loss(self, task: cutk.Task, probability: Tensor, weights: Tensor, unsettled: OpenLabel) -> cutk.Loss:
        q, w = probability.to(task.device), weights.to(task.device)
        settled = (weights.sum(1) < task.num_classes - 1).float().to(task.device)
        keep = task.recipe.loss if self.options.keep == "recipe" else cutk.cross_entropy

        def loss(logits: Tensor, batch: cutk.Batch) -> Tensor:
            suspect = q[batch.index]
            complement = complementary_loss(logits, w[batch.y])
            if unsettled == "nothing":
                complement = complement * settled[batch.y]
            elif unsettled == "below-chance":
                complement = complement * torch.maximum(settled[batch.y], informed(logits, batch.y))
            return keep(weighted(logits, 1 - suspect), batch) + (suspect * complement).mean()

        return loss

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """One forward pass for the original, then its rounds; a forward pass is a third of a pass."""
        retrain = options.final == "retrain"
        asked = options.rounds - (not retrain)
        whole = sizes.steps * sizes.batch_size / sizes.train if retrain else 0.0
        return 1 / 3, options.rounds * options.passes + asked / 3 + whole


def _report(task: cutk.Task, found: Posterior) -> None:
    task.log.scalar("known_part", found.alpha)
    task.log.scalar("mean_suspicion", found.probability.mean())
    for label, prior in found.priors.items():
        task.log.scalar(f"prior_{label}", prior)


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``seal``."""
    return [Seal]
