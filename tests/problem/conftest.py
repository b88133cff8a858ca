from __future__ import annotations

import pytest
import torch
from torch import nn

import cutk
from cutk.problem.scenario import Scenario
from cutk_builtin.datasets.fake import Fake
from cutk_builtin.identifications.uniform import Uniform
from cutk_builtin.manipulations.badnet import BadNet
from cutk_builtin.recipes.sgd import Sgd


class Net(cutk.Model):
    """One linear layer, for whatever samples of that size; dropout before it."""

    name = "tiny-net"
    dropout = 0.1

    def build(self, shape, num_classes):
        size = torch.Size(shape).numel()
        return nn.Sequential(nn.Flatten(), nn.Dropout(self.dropout), nn.Linear(size, num_classes))


@pytest.fixture
def recipe():
    return Sgd(Sgd.Options(steps=20, batch_size=32, crop_padding=0, flip=False))


@pytest.fixture
def splits():
    return Fake(Fake.Options(samples=200, test_samples=80)).load()


@pytest.fixture
def scenario_of(splits, recipe):
    """Make scenarios: twenty stamped images out of 190, unless told otherwise."""

    def make(manipulations=None, *, data=None, seed=0, identification=None, **kwargs):
        return Scenario(
            splits if data is None else data,
            BadNet(BadNet.Options(count=20)) if manipulations is None else manipulations,
            kwargs.pop("model", Net()),
            recipe,
            seed,
            identification=identification or Uniform(),
            **kwargs,
        )

    return make


@pytest.fixture
def scenario(scenario_of):
    return scenario_of()


@pytest.fixture
def samples_of():
    """Make samples of random contents, of each form."""

    def make(form="images", count=12, classes=3, seed=0, names=False, ids=None):
        generator = torch.Generator().manual_seed(seed)
        x = {
            "images": lambda: torch.randint(0, 256, (count, 1, 8, 8), generator=generator, dtype=torch.uint8),
            "features": lambda: torch.randn(count, 5, generator=generator),
            "tokens": lambda: torch.randint(0, 9, (count, 7), generator=generator),
        }[form]()
        return cutk.Samples(
            x,
            torch.arange(count) % classes,
            tuple(f"c{i}" for i in range(classes)),
            ids,
            tuple(f"s{i}.png" for i in range(count)) if names else None,
        )

    return make
