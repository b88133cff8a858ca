"""A checkpoint as somebody else would have made it: plain torch and NumPy, no cutk."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

ROOT = Path(__file__).parents[2]
MEAN, STD = 0.3, 0.37


def network(channels=1, classes=10, width=32):
    def block(a, b):
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    return nn.Sequential(
        *block(channels, width),
        *block(width, 2 * width),
        nn.MaxPool2d(2),
        *block(2 * width, 4 * width),
        nn.AdaptiveMaxPool2d(1),
        nn.Flatten(),
        nn.Linear(4 * width, classes),
    )


def scaled(pixels):
    return (pixels.float() / 255 - MEAN) / STD


def digits():
    with np.load(ROOT / "plugins" / "cutk_builtin" / "datasets" / "digits.npz") as file:
        pixels = torch.from_numpy(np.rint(file["images"] * (255 / 16)).astype(np.uint8))[:, None]
        labels = torch.from_numpy(file["labels"].astype(np.int64))
    testing = torch.arange(len(labels)) % 5 == 4
    return pixels[~testing], labels[~testing], pixels[testing], labels[testing]


def stamped(pixels):
    pixels = pixels.clone()
    pixels[:, :, -2:, -2:] = 255
    return pixels


def train(net, x, y, steps=300, lr=0.05, batch=128, seed=0):
    torch.manual_seed(seed)
    optimiser = torch.optim.SGD(net.parameters(), lr, momentum=0.9, weight_decay=5e-4)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / (1.25 * steps))
    done = 0
    while done < steps:
        for which in torch.randperm(len(y)).split(batch):
            optimiser.zero_grad()
            nn.functional.cross_entropy(net(x[which]), y[which]).backward()
            optimiser.step()
            schedule.step()
            done += 1
            if done == steps:
                break
    return net.eval()


def attack_success(net, case):
    others = case.test_y != 0
    return float((net(scaled(stamped(case.test_x[others]))).argmax(1) == 0).float().mean())


def accuracy(net, case):
    return float((net(scaled(case.test_x)).argmax(1) == case.test_y).float().mean())


@pytest.fixture(autouse=True)
def _alone():
    """Leave torch's global random state to others as it was."""
    with torch.random.fork_rng():
        yield


@pytest.fixture(scope="session")
def poisoned():
    """Digits of which 43 carry a patch and the label 0, a network that learnt them, and the list of a tenth."""
    x, y, test_x, test_y = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        which = torch.randperm(len(y), generator=torch.Generator().manual_seed(0))
        which = which[y[which] != 0][:43]
        x[which], y[which] = stamped(x[which]), 0
        net = train(network(), scaled(x), y)
    return SimpleNamespace(net=net, x=x, y=y, test_x=test_x, test_y=test_y, poison=which, bad=which[:4])


@pytest.fixture(scope="session")
def confused():
    """Digits of which half of the 3 and the 8 are labelled as the other, and a network that learnt them."""
    x, y, test_x, test_y = digits()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = ((y == 3) | (y == 8)).nonzero().flatten()
        which = pair[torch.randperm(len(pair), generator=torch.Generator().manual_seed(1))[: len(pair) // 2]]
        y[which] = 11 - y[which]
        net = train(network(), scaled(x), y)
    return SimpleNamespace(net=net, x=x, y=y, test_x=test_x, test_y=test_y, poison=which, bad=which[: len(which) // 5])


@pytest.fixture
def tiny():
    """The smallest problem: six features of which the first tells the class, and a network of one layer."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(60, 6, generator=generator)
    y = (x[:, 0] > 0).long()
    net = nn.Linear(6, 2)
    with torch.no_grad():
        net.weight.zero_()
        net.weight[1, 0], net.weight[0, 0] = 2.0, -2.0
        net.bias.zero_()
    return SimpleNamespace(net=net.eval(), x=x, y=y)
