"""A training as the benchmark's, on samples that somebody handed over."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from cutk.chance import derive_seed
from cutk.data.batches import TrainSet
from cutk.learning.recipe import Recipe
from cutk.problem.task import Log, Task

__all__ = ["training_task"]


def training_task(
    train: TrainSet, recipe: Recipe, build: Callable[[], nn.Module], seed: int, tell: Callable[[int, int], None]
) -> Task:
    """Return the task whose ``retrain`` trains an original, as the benchmark's does."""
    return Task(
        nn.Identity(),
        train,
        torch.arange(1),
        recipe,
        build=build,
        log=Log(tell),
        initialisation_seed=derive_seed(seed, "initialisation"),
        order_seed=derive_seed(seed, "order"),
    )
