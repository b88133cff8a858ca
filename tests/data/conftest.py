from __future__ import annotations

import pytest
import torch

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk.data.samples import Samples


def contents(form, count, generator):
    if form == "images":
        return torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    if form == "features":
        return torch.randn(count, 5, generator=generator) * 3 + 7
    return torch.randint(0, 50, (count, 6), generator=generator)


@pytest.fixture
def samples_of():
    """Make samples of random contents."""

    def make(count=10, form="images", classes=3, seed=0, **kwargs) -> Samples:
        x = contents(form, count, torch.Generator().manual_seed(seed))
        return Samples(x, torch.arange(count) % classes, tuple(f"c{i}" for i in range(classes)), **kwargs)

    return make


@pytest.fixture
def plain_set(samples_of):
    """A training set whose normalisation only scales to 0 … 1."""

    def make(samples=None, **kwargs) -> ResidentTrainSet:
        samples = samples or samples_of()
        width = 0 if samples.form == "tokens" else samples.shape[0]
        return ResidentTrainSet(samples, cutk.Normalisation((0.0,) * width, (1.0,) * width), **kwargs)

    return make
