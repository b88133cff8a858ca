"""What is checked of a recipe: its loss, its optimisers and its schedule, and that a tiny network learns by them."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from cutk.data.batches import Batch
from cutk.learning.recipe import Recipe, cross_entropy
from cutk.options import Options
from cutk.problem.scenario import Scenario
from cutk.testing.components import Subject, all_checks
from cutk.testing.findings import Unmet, check
from cutk.testing.states import difference
from cutk.testing.tiny import tiny_scenario

__all__ = ["CHECKS", "SUBJECT", "TriedRecipe"]

STEPS = 60


class TriedRecipe(Subject):
    """A recipe with its own options, but for a few steps of small batches, and what it trains."""

    def make(self, options: Options | None = None) -> Recipe:
        """Return a recipe with options made as small as the tiny scenario."""
        asked: Any = self.options if options is None else options
        small = {"steps": min(asked.steps, STEPS), "batch_size": min(asked.batch_size, 16)}
        made: Recipe = super().make(asked.model_copy(update={**small, "crop_padding": 0, "flip": False}))
        return made.on(self.device)

    def scenario(self, recipe: Recipe) -> Scenario:
        """Return 72 images and a network to train on them."""
        return tiny_scenario(recipe=recipe, device=self.device)

    def work(self) -> dict[str, Tensor]:
        """Train; return the weights."""
        model = self.scenario(self.make()).train_original()
        return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}

    def losses(self, model: nn.Module) -> tuple[float, float]:
        """Return the recipe's own loss on the training set, and the cross-entropy."""
        recipe = self.make()
        (batch,) = self.scenario(recipe).train.batches()
        with torch.no_grad():
            logits = model.eval()(batch.x)
            return float(recipe.loss(logits, batch)), float(cross_entropy(logits, batch))


def _parameters() -> dict[str, nn.Parameter]:
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3))
    return dict(net.named_parameters())


@check("Return a float tensor without dimensions that depends on logits: a mean over the batch, say.", essential=True)
def loss_is_a_finite_number(subject: TriedRecipe) -> None:
    """loss() returns a finite scalar with a gradient, for a batch of several samples and of one."""
    for count in (5, 1):
        logits = torch.linspace(-2, 2, count * 4, device=subject.device).view(count, 4).requires_grad_()
        index = torch.arange(count, device=subject.device)
        with subject.apart():
            loss = subject.make().loss(
                logits, Batch(torch.zeros(count, 1, 8, 8, device=subject.device), index % 4, index)
            )
        if not isinstance(loss, Tensor) or loss.ndim or not loss.requires_grad:
            came = f"{loss.dtype} {list(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
            raise Unmet(f"for {count} samples it returns {came}, no scalar with a gradient")
        if not torch.isfinite(loss):
            raise Unmet(f"for {count} samples it returns {loss.item()}")


@check(
    "Put every parameter that optimisers() is given into one parameter group of one optimiser, and no other; leave out "
    "groups without a parameter.",
    essential=True,
)
def optimisers_cover_the_parameters(subject: TriedRecipe) -> None:
    """optimisers() covers the parameters that it is given, each once: all of a network's, or a few layers' alone."""
    everything = _parameters()
    for names in (list(everything), ["3.weight", "3.bias"], ["3.bias"], ["0.weight"]):
        asked = {name: everything[name] for name in names}
        with subject.apart():
            optimisers = list(subject.make().optimisers(asked, 0.1))
        covered = [id(p) for each in optimisers for group in each.param_groups for p in group["params"]]
        if missing := [name for name, parameter in asked.items() if id(parameter) not in covered]:
            raise Unmet(f"of {', '.join(names)} it leaves out {missing[0]}")
        if set(covered) - {id(parameter) for parameter in asked.values()}:
            raise Unmet(f"asked to train {', '.join(names)}, it trains others as well")
        if len(covered) > len(asked):
            raise Unmet(f"of {', '.join(names)} it trains some twice")


@check("Give lr to the optimiser: it is the peak learning rate of the recipe, or of the method that trains.")
def learning_rate_is_heeded(subject: TriedRecipe) -> None:
    """Twice the learning rate is twice the learning rate, in every parameter group."""
    with subject.apart():
        rates = [
            [float(group["lr"]) for each in subject.make().optimisers(_parameters(), lr) for group in each.param_groups]
            for lr in (0.1, 0.2)
        ]
    if any(not math.isclose(2 * low, high, rel_tol=1e-6) or low <= 0 for low, high in zip(*rates, strict=True)):
        raise Unmet(f"at lr = 0.1 the groups have {rates[0]}, at lr = 0.2 {rates[1]}")


@check("Return a factor on the peak learning rate from rate(), which is asked for the steps 0 … steps − 1.")
def rates_are_finite(subject: TriedRecipe) -> None:
    """rate() is finite and not negative in every step, however many there are, and above 0 in some."""
    recipe = subject.make()
    for steps in (1, 2, 3, 10, 1000):
        rates = [recipe.rate(step, steps) for step in range(steps)]
        for step, rate in enumerate(rates):
            if not isinstance(rate, int | float) or not math.isfinite(rate) or rate < 0:
                raise Unmet(f"in step {step} of {steps} it is {rate!r}")
        if not any(rates):
            raise Unmet(f"in all of {steps} steps it is 0")


@check("Look at the loss's sign, the learning rate and the schedule: sixty steps of sixteen images should be enough.")
def training_reduces_the_loss(subject: TriedRecipe) -> None:
    """After up to 60 steps on 72 simple images a network's loss, and its cross-entropy, is lower than at the start."""
    with subject.apart():
        scenario = subject.scenario(subject.make())
        trained = scenario.train_original()
        start = scenario.task(trained, 0.5).fresh()
        before, after = subject.losses(start), subject.losses(trained)
    for what, first, last in zip(("the recipe's loss", "cross-entropy"), before, after, strict=True):
        if not last < first:
            raise Unmet(f"{what} is {first:.4g} before and {last:.4g} after training")


@check("Keep nothing on self between calls: what an optimiser or a schedule has to remember belongs to the optimiser.")
def trainings_are_independent(subject: TriedRecipe) -> None:
    """One recipe trains several times, each time as if for the first time, and so does a copy of it."""
    with subject.apart():
        recipe = subject.make()
        scenario = subject.scenario(recipe)
        task = scenario.task(scenario.train_original(), 0.5)
        task.recipe = recipe  # the one that has trained, and no copy of it
        first, second = (task.retrain(torch.arange(len(task.train))).state_dict() for _ in range(2))
        task.recipe = copy.deepcopy(recipe)
        third = task.retrain(torch.arange(len(task.train))).state_dict()
    if found := difference(first, second, "the weights") or difference(first, third, "a copy's weights"):
        raise Unmet(f"two trainings differ in {found}")


SUBJECT = TriedRecipe
CHECKS = all_checks(globals())
