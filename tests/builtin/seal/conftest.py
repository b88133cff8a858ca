"""Two small problems for what seal is made of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk_builtin.recipes.sgd import Sgd


@pytest.fixture
def task(images_of):
    images = images_of(count=12, size=2)
    recipe = Sgd(Sgd.Options(steps=4, batch_size=6, lr=0.1, crop_padding=0, flip=False)).on("cpu")
    train = ResidentTrainSet(images, cutk.Normalisation((0.0,), (1.0,)))

    def build():
        return nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3))

    torch.manual_seed(5)
    return cutk.Task(build(), train, torch.tensor([1, 4]), recipe, build=build)


@pytest.fixture
def two_classes():
    """A task of two classes in which nothing is bad under label 0: forty samples of class 0 are labelled 1."""
    truth = torch.arange(400) % 2
    x = torch.randn(400, 8, generator=torch.Generator().manual_seed(0))
    x[:, 0] += (truth * 2 - 1) * 3
    bad = (truth == 0).nonzero().flatten()[:40]
    labels = truth.index_fill(0, bad, 1)
    samples = cutk.Samples(x, labels, ("a", "b"))
    train = ResidentTrainSet(samples, cutk.Normalisation.of(samples))
    recipe = Sgd(Sgd.Options(steps=60, batch_size=64, lr=0.05)).on("cpu")

    def build():
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))

    torch.manual_seed(0)
    return cutk.Task(recipe.train(build(), train), train, bad[:20], recipe, build=build), truth
