"""Seeded expansion and complementary learning."""

from __future__ import annotations

import copy
from typing import Any, Literal

import torch
from pydantic import model_validator
from torch import Tensor, nn

import cutk
from cutk_builtin.doubt import Following, Suspicion, correcting, otherwise, settled, teaching, unchanging
from cutk_builtin.looking import Outputs, alternatives, concerned, views
from cutk_builtin.seeded import Posterior, suspected, transition


@torch.no_grad()
def shrunk(model: nn.Module, fresh: nn.Module, kept: float) -> nn.Module:
    """Return ``fresh`` with kept · θ + (1 − kept) · θ_fresh as its parameters: what ``model`` learned, faded."""
    for old, new in zip(model.parameters(), fresh.parameters(), strict=True):
        new.lerp_(old, kept)
    return fresh


class Seal(cutk.Unlearner):
    r"""Finds the rest of what is bad from the part that is known, and learns from it that its labels are wrong.

    In each round every sample gets a probability q of being manipulated: within each given label that occurs in S_f, a
    probe on what the last layers are given tells S_f from samples that are clean under that label, and the one part α
    that S_f is of all of S_m ties the labels' priors to each other. Then M_o is fine-tuned on all of S_tr,
    minimising (1 − q) · loss(y) − q · log Σ_k W_k p_k, where loss is A's own, and W says which classes the suspects of
    label y have instead: what M_o takes them for otherwise if that is mostly one class, else every class but y. From
    the second round on the probe sees the repaired model's features beside M_o's, and where suspects are mostly one
    class, the repaired model itself says how likely each is that, beside the probe where that was told what is clean.

    ``final`` says what comes after the rounds: nothing (``tune``), a part of a training from the weights shrunk towards
    an initialisation (``restart``), or a training from it (``retrain``), both with the last q, that in the second half
    follows what the model says beside the probe. Where W says of all suspects what they are instead, a restart teaches
    them that by A's own loss, at the rate of the rounds. The initialisation is ``Task.fresh``. Knows nothing of the
    kind of manipulation: one setting for all. Costs rounds · passes passes, what comes after, and of the samples whose
    label occurs in S_f two forward passes, and another one for each round.
    """

    name = "seal"
    reference = "cutk"
    variant = "final"

    class Options(cutk.Options):
        """How much may be computed, and how sceptically."""

        rounds: int = cutk.option(1, ge=0, le=100, help="rounds of detection and fine-tuning")
        passes: float = cutk.option(1.0, gt=0, le=1000, help="passes over S_tr in each round")
        lr: float | None = cutk.option(
            None,
            gt=0,
            help="peak learning rate of rounds, and of a restart that teaches suspects; none: half the recipe's",
        )
        final: Literal["tune", "restart", "retrain"] = cutk.option(
            "restart", help="end with the last round's model, a part of a training from faded weights, or a training"
        )
        restart_part: float = cutk.option(0.35, gt=0, le=10, help="what part of a training follows a restart")
        kept: float = cutk.option(
            0.5, ge=0, le=1, help="weight of the last round's weights in those that it starts from"
        )
        penalty: float = cutk.option(20.0, gt=0, help="of the probe's squared weights, divided by how many are bad")
        refinements: int = cutk.option(4, ge=0, le=100, help="how often the probe learns from what it found")
        threshold: float = cutk.option(0.7, ge=0, le=1, help="share from which one class is what suspects have instead")

        @model_validator(mode="after")
        def _learns(self) -> Seal.Options:
            if self.final == "tune" and self.rounds == 0:
                raise ValueError("final=tune ends with the last round: expected rounds of at least 1, got 0")
            return self

    def prepare(self, task: cutk.Task) -> list[Outputs]:
        """Ask the original about all samples that may be bad."""
        return views(task.original, task.recipe, task.train, concerned(task), visits=2)

    def unlearn(self, task: cutk.Task, state: list[Outputs] | None = None) -> nn.Module:
        """Return the model that knows better."""
        o = self.options
        seen = self.prepare(task) if state is None else state
        lr = task.recipe.options.lr / 2 if o.lr is None else o.lr
        of_pass = _steps(task, 1.0)
        of_round, after = _steps(task, o.passes), self._after(task)
        model, whole = task.original, o.rounds * of_round + after
        suspicion = self._suspicion(task, seen)
        weights = self._transition(task, seen, suspicion.q)
        for done in range(o.rounds):
            loss = correcting(task, unchanging(suspicion.q.to(task.device)), weights, open_too=True)
            progress = _part_of(task, done * of_round, whole)
            model = self._fit(task, copy.deepcopy(task.original), loss, of_round, lr, progress)
            if o.final == "tune" and done + 1 == o.rounds:
                return model
            current = views(model, task.recipe, task.train, concerned(task))
            suspicion = self._suspicion(task, seen, current, weights)
        asked = self._asked(task, weights)
        following = Following(suspicion, asked, weights, steps=after, of_pass=of_pass, device=task.device)
        forgetting = correcting(task, following, weights, open_too=False)
        progress = _part_of(task, o.rounds * of_round, whole)
        if o.final == "retrain":
            return task.retrain(torch.arange(len(task.train)), loss=forgetting, progress=progress)
        start = shrunk(model, task.fresh(), o.kept)
        # Suspects that have no class instead are to be forgotten, which takes the full rate; others are taught theirs.
        found = task.train.labels.cpu()[task.identified.cpu()]
        if bool(settled(weights.cpu(), task.num_classes)[found].all()):
            return self._fit(task, start, teaching(task, following, weights), after, lr, progress)
        return self._fit(task, start, forgetting, after, None, progress)

    def _after(self, task: cutk.Task) -> int:
        """Return how many steps follow the rounds."""
        part = _part_after(self.options)
        return max(1, round(part * task.recipe.options.steps)) if part else 0

    def _transition(self, task: cutk.Task, seen: list[Outputs], suspicion: Tensor) -> Tensor:
        logits, among = seen[-1].logits, concerned(task)
        labels = task.train.labels.cpu()[among]
        other = alternatives(logits, labels.to(logits.device))
        return transition(other, labels, suspicion[among], task.num_classes, self.options.threshold)

    def _suspicion(
        self, task: cutk.Task, seen: list[Outputs], current: list[Outputs] | None = None, weights: Tensor | None = None
    ) -> Suspicion:
        """Return q: the probe's, and what the current model says itself where it has learned what suspects are."""
        among, labels, o = concerned(task), task.train.labels.cpu(), self.options
        found = suspected(task, [*seen, *(current or [])], o.penalty, o.refinements, among)

        def spread(part: Tensor) -> Tensor:
            return part.new_zeros(len(labels), *part.shape[1:]).index_copy_(0, among.to(part.device), part)

        probed, heard = spread(found.probability), torch.isin(labels, torch.tensor(found.trusted, dtype=torch.int64))
        suspicion = Suspicion(probed, probed, heard)
        if current and weights is not None:
            logits = spread(current[-1].logits)
            given = labels.to(logits.device)
            own = otherwise(logits, given, weights.to(logits.device)[given]).cpu()
            asked = self._asked(task, weights.cpu())
            suspicion = suspicion._replace(q=torch.where(asked, suspicion.beside(own), probed))
        _report(task, found, suspicion.q)
        return suspicion

    def _fit(
        self,
        task: cutk.Task,
        model: nn.Module,
        loss: cutk.Loss,
        steps: int,
        lr: float | None,
        progress: cutk.Progress,
    ) -> nn.Module:
        batches = task.train.batches(None, task.recipe.options.batch_size, shuffle=True, augment=True, steps=steps)
        return task.recipe.fit(model, batches, loss, steps=steps, lr=lr, progress=progress)

    def _asked(self, task: cutk.Task, weights: Tensor) -> Tensor:
        """Return of which samples a model that has learned what suspects are is asked: bool ``[N]``.

        None of S_f, which are known, and none under a label that S_f hasn't, where of two classes W is settled, too.
        """
        asked = torch.zeros(len(task.train), dtype=torch.bool, device=weights.device)
        among = concerned(task).to(weights.device)
        asked[among] = settled(weights, task.num_classes)[task.train.labels.to(weights.device)[among]]
        asked[task.identified.to(weights.device)] = False
        return asked

    @classmethod
    def passes(cls, options: Any, sizes: cutk.Sizes) -> tuple[float, float]:
        """Two forward passes for the original, then its rounds; a forward pass is a third of a pass.

        That is where every label occurs in S_f, which isn't known beforehand: it costs no more.
        """
        training = sizes.steps * sizes.batch_size / sizes.train
        after = _part_after(options) * training
        asked = max(0, options.rounds - (options.final == "tune"))
        return 2 / 3, options.rounds * options.passes + asked / 3 + after


def _steps(task: cutk.Task, passes: float) -> int:
    return max(1, round(passes * len(task.train) / min(task.recipe.options.batch_size, len(task.train))))


def _part_after(options: Any) -> float:
    """Return what part of a training follows the rounds."""
    return {"tune": 0.0, "restart": float(options.restart_part), "retrain": 1.0}[options.final]


def _part_of(task: cutk.Task, before: int, whole: int) -> cutk.Progress:
    """Return what tells of a training's steps as steps of the whole, of which so many come ``before``."""
    return lambda done, _: task.log.progress(before + done, whole)


def _report(task: cutk.Task, found: Posterior, q: Tensor) -> None:
    task.log.suspicion(q)
    task.log.scalar("known_part", found.alpha)
    task.log.scalar("mean_suspicion", q.mean())
    for label, prior in found.priors.items():
        task.log.scalar(f"prior_{label}", prior)


@cutk.hookimpl
def cutk_unlearners() -> list[type[cutk.Unlearner]]:
    """Provide ``seal``."""
    return [Seal]
