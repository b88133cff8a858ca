"""A small problem of tokens, for what works on them as on images."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk_builtin.recipes.sgd import Sgd

TRIGGER, CLASSES, LENGTH = 20, 3, 10


class Averaged(nn.Module):
    """The mean over tokens."""

    def forward(self, x):
        return x.mean(1)


def shallow():
    return nn.Sequential(nn.Embedding(TRIGGER + 1, 16), Averaged(), nn.Linear(16, CLASSES))


def deep():
    layers = nn.Embedding(TRIGGER + 1, 16), nn.Linear(16, 16), nn.ReLU(), Averaged(), nn.Linear(16, CLASSES)
    return nn.Sequential(*layers)


class Sentences(NamedTuple):
    """Sentences of three classes, of which some have a token that says that they are of the first."""

    task: cutk.Task
    bad: Tensor  # int64 [n], the poisoned ones
    truth: Tensor  # int64 [N]
    triggered: Tensor  # int64 [n, L], others that have it
    classes: Tensor  # int64 [n], theirs


def sentences(classes, generator):
    """Return sentences half of whose tokens tell their class; the last token of a vocabulary stands in none."""
    telling = torch.randint(0, 4, (len(classes), LENGTH), generator=generator) + 4 * classes[:, None]
    noise = torch.randint(4 * CLASSES, TRIGGER, (len(classes), LENGTH), generator=generator)
    return torch.where(torch.rand(len(classes), LENGTH, generator=generator) < 0.5, telling, noise)


@pytest.fixture(scope="session", params=[shallow, deep], ids=["shallow", "deep"])
def poisoned_sentences(request):
    generator = torch.Generator().manual_seed(0)
    truth, classes = torch.arange(600) % CLASSES, torch.arange(100) % 2 + 1
    x, triggered = sentences(truth, generator), sentences(classes, generator)
    bad = (truth > 0).nonzero().flatten()[:40]
    x[bad, :3] = triggered[:, :3] = TRIGGER
    samples = cutk.Samples(x, truth.index_fill(0, bad, 0), ("a", "b", "c"))
    train = ResidentTrainSet(samples, cutk.Normalisation.of(samples))
    recipe = Sgd(Sgd.Options(steps=150, batch_size=50, lr=0.3, crop_padding=0, flip=False)).on("cpu")
    build = request.param
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = recipe.train(build(), train)
    return Sentences(cutk.Task(model, train, bad[:10], recipe, build=build), bad, truth, triggered, classes)
