from __future__ import annotations

import re

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import cutk
from cutk.repair.sanity import balanced_accuracy, class_order, near_chance

from .conftest import MEAN, STD


def test_accuracy_is_balanced_over_classes():
    labels = torch.tensor([0] * 99 + [1])
    assert balanced_accuracy(torch.zeros(100, dtype=torch.int64), labels) == 0.5
    assert near_chance(0.5, 2)
    assert not near_chance(1.0, 1)


def test_the_order_of_classes_is_found():
    labels = torch.arange(30) % 3
    assert class_order((labels + 1) % 3, labels, 3) == [1, 2, 0]
    # A class that is never predicted takes what is left.
    assert sorted(class_order(torch.zeros(30, dtype=torch.int64), labels, 3)) == [0, 1, 2]


def sanity(net, x, y, **more):
    return cutk.unlearn(net, TensorDataset(x, y), [0, 1], "none", force=True, **more).report.sanity


def test_weights_that_fit_pass(poisoned):
    found = sanity(poisoned.net, poisoned.x, poisoned.y, mean=[MEAN], std=[STD])
    assert not found.near_chance
    assert re.match(r"The weights reach (9\d|100).\d % on training samples that are not listed; ", found.line)
    assert "of the bad samples get their given label" in found.line


class Strict(nn.Module):
    """Reads images that are normalised as it was trained, and says class 0 of all others."""

    def __init__(self, mean, std, order=(0, 1, 2), channels=(0, 1, 2)):
        super().__init__()
        self.mean, self.std, self.order, self.channels = mean, std, order, channels
        self.weight = nn.Parameter(torch.zeros(1))

    def forward(self, x):
        pixels = ((x * self.std + self.mean) * 255).round()
        seen = pixels.mean((2, 3))[:, list(self.channels)]  # of class c, channel c alone is bright
        low, high = pixels.amin((1, 2, 3)), pixels.amax((1, 2, 3))
        valid = (low >= 0) & (low < 60) & (high <= 255) & (high > 190)
        logits = torch.zeros(len(x), 3)
        logits[valid] = seen[valid][:, list(self.order)] / 10
        logits[~valid, 0] = 5.0
        return logits + self.weight


@pytest.fixture
def colours():
    y = torch.arange(90) % 3
    x = torch.randint(0, 40, (90, 3, 8, 8), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    x[torch.arange(90), y] += 200
    return x, y


@pytest.mark.parametrize(
    ("net", "fits"),
    [
        (Strict(0.5, 0.5), "mean=0.5, std=0.5 "),
        (Strict(0.0, 1.0, order=(1, 2, 0)), "labels as the outputs stand, 0 → 2, 1 → 0, 2 → 1 (100.0 %)"),
        (Strict(0.5, 0.5, channels=(2, 1, 0)), "mean=0.5, std=0.5, channels the other way round"),
    ],
)
def test_what_would_fit_is_named(colours, net, fits):
    found = sanity(net.eval(), *colours)
    assert found.near_chance
    assert fits in found.fits or (fits.endswith("round") and "0 → 2, 2 → 0" in found.fits)
    assert "100.0 %" in found.fits


def test_weights_near_chance_are_refused_with_what_would_fit(colours):
    x, y = colours
    with pytest.raises(cutk.UsageError) as error:
        cutk.unlearn(Strict(0.5, 0.5).eval(), TensorDataset(x, y), [0, 1], "none")
    assert re.fullmatch(
        r"The weights reach 3\d.\d % on training samples that are not listed; .* That is near chance: .* Tried: mean "
        r"0, std 1, classes 0, 1, 2. What would fit: mean=0.5, std=0.5 \(100.0 %\).* Give what training used, or go on "
        r"with force=True.",
        str(error.value),
    )
    assert cutk.unlearn(Strict(0.5, 0.5).eval(), TensorDataset(x, y), [0], "none", mean=0.5, std=0.5).report.sanity
    with pytest.raises(cutk.UsageError, match=r"No other usual way fits better: .*\? Go on with force=True"):
        cutk.unlearn(Strict(0.5, 0.5).eval(), TensorDataset(x.flip(0) // 9, y), [0, 1], "none")


def test_an_order_of_classes_is_named_by_what_gives_it(colours):
    x, y = colours
    data, net = cutk.Samples(x, y, ("a", "b", "c")), Strict(0.0, 1.0, order=(1, 2, 0)).eval()
    with pytest.raises(cutk.UsageError, match=r"What would fit: classes=\['b', 'c', 'a'\] \(100.0 %\)"):
        cutk.unlearn(net, data, [0, 1], "none")
    report = cutk.unlearn(net, data, [0, 1], "none", classes=["b", "c", "a"]).report
    assert report.original.validation.value == 1.0


class Centred(Strict):
    """Reads images however they are normalised, if some of their values are below 0."""

    def forward(self, x):
        logits = x.mean((2, 3))
        logits[x.amin((1, 2, 3)) >= 0] = torch.tensor([5.0, 0.0, 0.0])
        return logits + self.weight


def test_normalisations_that_fit_as_well_are_all_named(colours):
    found = sanity(Centred(0.5, 0.5).eval(), *colours)
    assert found.near_chance
    ways = found.fits.split(" or ")
    assert len(ways) == 3
    assert ways[0] == "mean=0.5, std=0.5 (100.0 %)"
    assert all(way.endswith("(100.0 %)") for way in ways)
    assert not any("round" in way or "labels" in way for way in ways)


class Grey(Centred):
    """Tells by which third of a grey image is bright."""

    def forward(self, x):
        return super().forward(x.unflatten(2, (3, -1)).squeeze(1))


def test_of_grey_images_one_number_is_named(colours):
    x, y = colours
    found = sanity(Grey(0.5, 0.5).eval(), x.reshape(90, 1, 24, 8), y)
    assert found.fits.split(" or ")[:2] == ["mean=0.5, std=0.5 (100.0 %)", "mean=0.485, std=0.229 (100.0 %)"]


class Half(Strict):
    """Reads images that are normalised otherwise, too, and takes class 2 for class 0 there."""

    def forward(self, x):
        logits = super().forward(x)
        astray = logits[:, 0] == 5.0 + float(self.weight)
        logits[astray, 0] = torch.where(x[astray].mean((2, 3)).argmax(1) == 1, 0.0, 5.0)
        logits[astray, 1] = 1.0
        return logits


def test_weak_weights_are_told_what_would_fit_better(colours):
    repair = cutk.unlearn(Half(0.5, 0.5).eval(), TensorDataset(*colours), [0, 1], "none")
    found = repair.report.sanity
    assert not found.near_chance
    assert found.fits.startswith("mean=0.5, std=0.5 ")
    for page in (repair.html(), repair._repr_html_()):
        assert found.fits in page
    assert sanity(Half(0.0, 1.0).eval(), *colours).fits == ""


def test_weights_that_fit_nothing_are_said_to(poisoned):
    torch.manual_seed(0)
    x = torch.randint(0, 255, (200, 1, 8, 8), dtype=torch.uint8)
    found = sanity(poisoned.net, x, torch.arange(200) % 10)
    assert found.near_chance
    assert found.fits == ""
