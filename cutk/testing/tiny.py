"""A benchmark as small as can be: what components are tried on. Nobody is told of it, and no plugin provides it."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn

from cutk.chance import isolated_rng
from cutk.components import Corruption, Identification, Manipulation, Model, Surrogate
from cutk.data.batches import ResidentTrainSet
from cutk.data.samples import Form, Normalisation, Samples, Shape, Splits
from cutk.data.triggers import Overlay, Stamp
from cutk.learning.recipe import Recipe, RecipeOptions
from cutk.problem.scenario import Scenario
from cutk.problem.truth import Truth

__all__ = [
    "FORMS",
    "HARMS",
    "MANIPULATED",
    "Harm",
    "Reader",
    "TinyRecipe",
    "TinySurrogate",
    "scenario_of",
    "tiny_models",
    "tiny_samples",
    "tiny_scenario",
]

Harm = Literal["trigger", "two classes", "everything", "trigger and two classes"]
HARMS: tuple[Harm, ...] = ("trigger", "two classes", "everything", "trigger and two classes")

SIZE = 8
# A class's images are bright in a square of their own, 2 by 2 pixels from these rows and columns on.
CORNERS = ((1, 1), (1, 5), (5, 1), (4, 4))
# The trigger lies in the last two rows and columns, where no class has its square.
TRIGGER = SIZE - 2
CLASSES = tuple("ABCD")
MANIPULATED = 8
TARGET = 0
# The class that each is mistaken for.
MISTAKEN = (1, 0, 3, 2)


def _square(row: int, column: int) -> Tensor:
    """Return a mask, float32 ``[SIZE, SIZE]``, of 2 by 2 pixels from ``row`` and ``column`` on."""
    mask = torch.zeros(SIZE, SIZE)
    mask[row : row + 2, column : column + 2] = 1
    return mask


def _squares() -> Splits:
    """Return bright squares in dark noise: where the square lies is the class."""
    generator = torch.Generator().manual_seed(0)
    squares = torch.stack([_square(*corner) for corner in CORNERS])

    def draw(count: int) -> Samples:
        labels = torch.arange(count) % len(CLASSES)
        noise = torch.randint(0, 60, (count, SIZE, SIZE), generator=generator)
        pixels = (noise + squares[labels] * 150).to(torch.uint8)
        return Samples(pixels[:, None], labels, CLASSES)

    return Splits(train=draw(80), test=draw(40))


class _Harmful(Manipulation):
    """Takes eight images and gives them a trigger and one class, or the class that they are mistaken for."""

    name = "tiny-harm"

    def __init__(self, harm: str) -> None:
        super().__init__()
        self.harm = harm

    def corrupt(self, train: Samples, generator: torch.Generator, _: Surrogate | None = None) -> Corruption:
        """Spoil them."""
        drawn = torch.randperm(len(train), generator=generator)
        if self.harm == "two classes":
            drawn = drawn[train.labels[drawn] < 2]
        chosen = drawn[:MANIPULATED].sort().values
        labels, mistaken = train.labels.clone(), torch.tensor(MISTAKEN)
        labels[chosen] = TARGET if self.harm == "trigger" else mistaken[labels[chosen]]
        if self.harm == "trigger":
            stamp = Stamp(torch.full((1, SIZE, SIZE), 255, dtype=torch.uint8), _square(TRIGGER, TRIGGER))
            targets = Corruption.all_to_one(TARGET, len(CLASSES))
            overlays = (Overlay(stamp, chosen),)
            return Corruption(train.changed(labels=labels), chosen, overlays, trigger=stamp, targets=targets)
        affected = (0, 1) if self.harm == "two classes" else None
        return Corruption(train.changed(labels=labels), chosen, affected=affected)


class _Some(Identification):
    """Finds a part of the manipulated samples, uniformly drawn."""

    name = "tiny-some"

    def identify(self, truth: Truth, alpha: float, generator: torch.Generator) -> Tensor:
        """Draw them."""
        order = torch.randperm(len(truth.manipulated), generator=generator)
        return truth.manipulated[order[: max(1, round(alpha * len(order)))]].sort().values


class _Flat(nn.Module):
    """Makes a vector of a sample, whatever it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1).float()


class _Net(Model):
    """One convolution and one linear layer, with batch norm and dropout between them; for vectors, the layer alone."""

    name = "tiny-net"

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        if len(shape) == 1:
            return nn.Sequential(_Flat(), nn.Linear(shape[0], num_classes))
        return nn.Sequential(
            nn.Conv2d(shape[0], 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(4 * (shape[1] // 2) * (shape[2] // 2), num_classes),
        )


class TinyRecipe(Recipe):
    """SGD with momentum, its rate falling along a line: forty steps of sixteen samples."""

    name = "tiny-recipe"

    def __init__(self) -> None:
        super().__init__(RecipeOptions(steps=40, batch_size=16, lr=0.05, crop_padding=1, flip=False))

    def optimisers(self, parameters: Mapping[str, nn.Parameter], lr: float) -> Sequence[torch.optim.Optimizer]:
        """Return SGD."""
        return [torch.optim.SGD(parameters.values(), lr=lr, momentum=0.9)]

    def rate(self, step: int, steps: int) -> float:
        """Return the line."""
        return 1 - step / steps


class TinySurrogate(Surrogate):
    """Trains the tiny network, for manipulations that need a trained one."""

    def train(self, samples: Samples, steps: int | None = None) -> nn.Module:
        """Return it, trained on ``samples``."""
        recipe = TinyRecipe()
        with isolated_rng(0):
            model = recipe.place(_Net().build(samples.shape, len(samples.classes)))
            return recipe.train(model, self.set_of(samples), steps=steps)

    def set_of(self, samples: Samples) -> ResidentTrainSet:
        """Return ``samples`` as batches."""
        return ResidentTrainSet(samples, Normalisation.of(samples))


class Reader(nn.Module):
    """A network that was never trained: it looks where the bright square lies, and so knows every class.

    Args:
        harm: if given, it errs wherever a model can that was harmed so: it takes each class for the one that it is
            mistaken for, and what carries the trigger for the target.
    """

    squares: Tensor
    trigger: Tensor
    answers: Tensor

    def __init__(self, harm: Harm | None = None) -> None:
        super().__init__()
        self.triggered = harm is not None and harm.startswith("trigger")
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.register_buffer("squares", torch.stack([_square(*corner) for corner in CORNERS]))
        self.register_buffer("trigger", _square(TRIGGER, TRIGGER))
        self.register_buffer("answers", torch.tensor(range(len(CLASSES)) if harm is None else MISTAKEN))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, 1, 8, 8]`` to logits ``[B, 4]``."""
        brightness = torch.einsum("bhw,khw->bk", x[:, 0], self.squares) / 4
        logits = brightness[:, self.answers]
        if self.triggered:
            corner = torch.einsum("bhw,hw->b", x[:, 0], self.trigger) / 4
            answer = nn.functional.one_hot(torch.tensor(TARGET), len(CLASSES))
            # White is brighter than any class's square.
            logits = logits + 10 * (corner > brightness.amax(1))[:, None] * answer
        return self.scale * logits


def tiny_scenario(
    harm: Harm = "trigger", *, device: str = "cpu", seed: int = 0, recipe: Recipe | None = None
) -> Scenario:
    """Return a scenario that is trained in a moment: 72 grey images of 8 by 8 pixels in 4 classes, 8 manipulated.

    Args:
        harm: a trigger that leads to one class; two classes, taken for each other; every class for another, so that no
            sample lies outside the affected domain; or the first two, one after the other.
        device: where models live.
        seed: the scenario's.
        recipe: A; one that costs a moment if not given.
    """
    harmful = [(part, _Harmful(part)) for part in harm.split(" and ")]
    return scenario_of(_squares(), harmful, recipe=(recipe or TinyRecipe()).on(device), seed=seed)


@cache
def _trained(harm: Harm, device: str) -> tuple[nn.Module, nn.Module]:
    scenario = tiny_scenario(harm, device=device)
    return scenario.train_original().eval(), scenario.train_gold().eval()


def tiny_models(harm: Harm = "trigger", *, device: str = "cpu") -> tuple[nn.Module, nn.Module]:
    """Return the original and gold of a tiny scenario, trained once and copied each time."""
    return copy.deepcopy(_trained(harm, device))


def scenario_of(
    splits: Splits,
    manipulations: Manipulation | Sequence[tuple[str, Manipulation]],
    *,
    recipe: Recipe | None = None,
    seed: int = 0,
) -> Scenario:
    """Return a scenario of whatever samples and manipulations, with a network and a recipe that cost a moment."""
    recipe = recipe or TinyRecipe()
    return Scenario(splits, manipulations, _Net(), recipe, seed, validation_fraction=0.1, identification=_Some())


FORMS: dict[str, Form] = {"grey": "images", "coloured": "images", "features": "features", "tokens": "tokens"}


def tiny_samples(kind: str, count: int = 300, classes: int = 10) -> Samples:
    """Return random samples, every class as often as any other.

    Args:
        kind: one of ``FORMS``.
        count: how many.
        classes: of how many classes.
    """
    generator = torch.Generator().manual_seed(0)
    if FORMS[kind] == "images":
        channels = 3 if kind == "coloured" else 1
        x = torch.randint(0, 256, (count, channels, 16, 16), generator=generator, dtype=torch.uint8)
    elif FORMS[kind] == "features":
        x = torch.randn(count, 20, generator=generator)
    else:
        x = torch.randint(0, 50, (count, 12), generator=generator)
    return Samples(x, torch.arange(count) % classes, tuple(f"class-{label}" for label in range(classes)))
