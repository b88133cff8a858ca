"""A benchmark as small as can be: what components are tried on. Nobody is told of it, and no plugin provides it."""

from __future__ import annotations

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cutk.components import Corruption, Dataset, Manipulation, Model
from cutk.data.batches import Stamp
from cutk.data.samples import Images, Shape, Splits
from cutk.errors import UsageError
from cutk.learning.recipe import Recipe, RecipeOptions
from cutk.problem.scenario import Scenario

__all__ = ["CORNERS", "MANIPULATED", "Harm", "Reader", "scenario_of", "tiny_images", "tiny_scenario"]

Harm = Literal["trigger", "two classes", "everything"]

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


class _Squares(Dataset):
    """Bright squares in dark noise: where the square lies is the class."""

    name = "tiny-squares"

    def load(self) -> Splits:
        """Draw the images."""
        generator = torch.Generator().manual_seed(0)
        squares = torch.stack([_square(*corner) for corner in CORNERS])

        def draw(count: int) -> Images:
            labels = torch.arange(count) % len(CLASSES)
            noise = torch.randint(0, 60, (count, SIZE, SIZE), generator=generator)
            pixels = (noise + squares[labels] * 150).to(torch.uint8)
            return Images(pixels[:, None], labels, CLASSES)

        return Splits(train=draw(80), test=draw(40))


class _Harmful(Manipulation):
    """Takes eight images and gives them a trigger and one class, or the class that they are mistaken for."""

    name = "tiny-harm"

    def __init__(self, harm: Harm) -> None:
        super().__init__()
        self.harm = harm

    def corrupt(self, train: Images, generator: torch.Generator) -> Corruption:
        """Spoil them."""
        drawn = torch.randperm(len(train), generator=generator)
        if self.harm == "two classes":
            drawn = drawn[train.labels[drawn] < 2]
        chosen = drawn[:MANIPULATED].sort().values
        labels, mistaken = train.labels.clone(), torch.tensor(MISTAKEN)
        labels[chosen] = TARGET if self.harm == "trigger" else mistaken[labels[chosen]]
        images = Images(train.pixels, labels, train.classes)
        if self.harm == "trigger":
            stamp = Stamp(torch.full((1, SIZE, SIZE), 255, dtype=torch.uint8), _square(TRIGGER, TRIGGER))
            return Corruption(images, chosen, stamp=stamp, trigger=stamp, target=TARGET)
        return Corruption(images, chosen, affected_classes=(0, 1) if self.harm == "two classes" else None)


class _Net(Model):
    """One convolution and one linear layer, with batch norm and dropout between them."""

    name = "tiny-net"

    def build(self, shape: Shape, num_classes: int) -> nn.Module:
        """Return the network."""
        if min(shape[1:]) < 2:
            raise UsageError(f"Expected images of at least 2×2 pixels, got {shape[1]}×{shape[2]}.")
        return nn.Sequential(
            nn.Conv2d(shape[0], 4, 3, padding=1),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.1),
            nn.Linear(4 * (shape[1] // 2) * (shape[2] // 2), num_classes),
        )


class Reader(nn.Module):
    """A network that was never trained: it looks where the bright square lies, and so knows every class.

    Args:
        harmed: whether it errs wherever a model can: it takes each class for the one that it is mistaken for.
        target: if given, what it says of every image that carries the trigger.
    """

    squares: Tensor
    trigger: Tensor
    answers: Tensor

    def __init__(self, *, harmed: bool = False, target: int | None = None) -> None:
        super().__init__()
        self.target = target
        self.scale = nn.Parameter(torch.tensor(5.0))
        self.register_buffer("squares", torch.stack([_square(*corner) for corner in CORNERS]))
        self.register_buffer("trigger", _square(TRIGGER, TRIGGER))
        self.register_buffer("answers", torch.tensor(MISTAKEN if harmed else range(len(CLASSES))))

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[B, 1, 8, 8]`` to logits ``[B, 4]``."""
        brightness = torch.einsum("bhw,khw->bk", x[:, 0], self.squares) / 4
        logits = brightness[:, self.answers]
        if self.target is not None:
            corner = torch.einsum("bhw,hw->b", x[:, 0], self.trigger) / 4
            answer = nn.functional.one_hot(torch.tensor(self.target), len(CLASSES))
            # White is brighter than any class's square.
            logits = logits + 10 * (corner > brightness.amax(1))[:, None] * answer
        return self.scale * logits


def tiny_scenario(harm: Harm = "trigger", *, device: str = "cpu", seed: int = 0) -> Scenario:
    """Return a scenario that is trained in a moment: 72 grey images of 8 by 8 pixels in 4 classes, 8 manipulated.

    Args:
        harm: a trigger that leads to one class; two classes, taken for each other; or every class for another, so
            that no sample lies outside the affected domain.
        device: where models live.
        seed: the scenario's.
    """
    return scenario_of(_Squares().load(), _Harmful(harm), device=device, seed=seed)


def scenario_of(splits: Splits, manipulation: Manipulation, *, device: str = "cpu", seed: int = 0) -> Scenario:
    """Return a scenario of whatever images and manipulation, with a network and a recipe that cost a moment."""
    options = RecipeOptions(steps=40, batch_size=16, lr=0.05, crop_padding=1, flip=False)
    recipe = Recipe(options, torch.device(device))
    return Scenario(splits, manipulation, _Net(), recipe, seed, validation_fraction=0.1)


def tiny_images(count: int, channels: int, size: int, classes: int) -> Images:
    """Return images of random pixels, every class as often as any other."""
    draw = partial(torch.randint, generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    pixels: Any = draw(0, 256, (count, channels, size, size))
    return Images(pixels, torch.arange(count) % classes, tuple(f"class-{label}" for label in range(classes)))
