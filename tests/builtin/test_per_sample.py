from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from cutk_builtin import per_sample
from cutk_builtin.per_sample import FORMULAS, by_layers, by_vmap, layers_of, one_by_one, square_sums_for

CLASSES = 3


class Summed(nn.Module):
    """Makes a class's score of each third of what comes in."""

    def forward(self, x):
        return torch.stack([part.flatten(1).sin().sum(1) for part in x.chunk(CLASSES, 1)], 1)


class Scale(nn.Module):
    """A layer that no formula knows."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.rand(6))

    def forward(self, x):
        return x * self.factor.exp()


class Twice(nn.Module):
    """Calls a layer twice."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(self.layer(x).tanh())


class Rooted(nn.Module):
    """Has a parameter itself, and a layer."""

    def __init__(self):
        super().__init__()
        self.shift = nn.Parameter(torch.rand(6))
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(x + self.shift)


class Borrowing(nn.Module):
    """Uses a layer's weights once more, beside it."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return self.layer(x) + 0.3 * (x @ self.layer.weight)


class Unasked(nn.Module):
    """Uses a layer's weights and never calls it, and has another that it doesn't use."""

    def __init__(self):
        super().__init__()
        self.layer, self.idle = nn.Linear(6, 6), nn.Linear(2, 2)

    def forward(self, x):
        return x @ self.layer.weight + self.layer.bias


class Mixing(nn.Module):
    """Puts another dimension first than that of the samples."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x):
        return self.layer(x.unflatten(1, (2, 3)).transpose(0, 1)).transpose(0, 1).flatten(1)


def tied():
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), second)


def frozen():
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    model[0].requires_grad_(False)
    return model


def with_statistics(norm):
    for value in norm.parameters():
        nn.init.uniform_(value, 0.5, 1.5)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return norm


# Layers whose output has three or six channels or features, and what shape of a sample each gets.
LAYERS = {
    "linear": (lambda: nn.Linear(4, 6), (4,)),
    "linear-without-bias": (lambda: nn.Linear(4, 6, bias=False), (4,)),
    "linear-at-places": (lambda: nn.Linear(4, 6), (3, 4)),
    "linear-at-places-of-a-grid": (lambda: nn.Linear(4, 6), (3, 2, 4)),
    "convolution": (lambda: nn.Conv2d(4, 6, 3), (4, 7, 6)),
    "convolution-padded": (lambda: nn.Conv2d(4, 6, 3, padding=1, bias=False), (4, 5, 6)),
    "convolution-1x1": (lambda: nn.Conv2d(4, 6, 1), (4, 5, 6)),
    "convolution-odd": (lambda: nn.Conv2d(4, 6, (3, 2), (2, 3), (1, 2), (2, 1)), (4, 9, 8)),
    "convolution-grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (4, 5, 5)),
    "convolution-depthwise": (lambda: nn.Conv2d(3, 6, 3, 2, 1, groups=3), (3, 5, 5)),
    "batch-norm-of-vectors": (lambda: with_statistics(nn.BatchNorm1d(6)), (6,)),
    "batch-norm-of-sequences": (lambda: with_statistics(nn.BatchNorm1d(6)), (6, 5)),
    "batch-norm": (lambda: with_statistics(nn.BatchNorm2d(6)), (6, 4, 5)),
    "batch-norm-without-scale": (lambda: nn.Sequential(nn.BatchNorm2d(6, affine=False), nn.Conv2d(6, 6, 1)), (6, 4, 5)),
    "batch-norm-of-volumes": (lambda: with_statistics(nn.BatchNorm3d(6)), (6, 2, 3, 2)),
    "group-norm": (lambda: nn.GroupNorm(3, 6), (6, 4, 5)),
    "layer-norm": (lambda: nn.LayerNorm(6), (6,)),
    "layer-norm-at-places": (lambda: nn.LayerNorm(6), (3, 6)),
    "layer-norm-of-planes": (lambda: nn.LayerNorm((3, 4)), (3, 3, 4)),
    "embedding": (lambda: nn.Embedding(7, 6), None),
    "embedding-padded": (lambda: nn.Embedding(7, 6, padding_idx=2), None),
    # By differentiating the layer alone.
    "convolution-circular": (lambda: nn.Conv2d(4, 6, 3, padding=1, padding_mode="circular"), (4, 5, 5)),
    "convolution-same": (lambda: nn.Conv2d(4, 6, 3, padding="same"), (4, 5, 5)),
    "convolution-of-sequences": (lambda: nn.Conv1d(4, 6, 3), (4, 7)),
    "custom": (Scale, (6,)),
}


@pytest.mark.parametrize("held", [1, 10**9], ids=["in-pieces", "at-once"])
@pytest.mark.parametrize("kind", LAYERS)
def test_layers_give_what_single_samples_do(monkeypatch, kind, held):
    torch.manual_seed(0)
    monkeypatch.setattr(per_sample, "HELD", held)
    build, shape = LAYERS[kind]
    model = nn.Sequential(build(), Summed()).double().eval()
    x = torch.randint(7, (5, 6)) if shape is None else torch.randn(5, *shape, dtype=torch.float64)
    y = torch.tensor([0, 1, 2, 1, 0])
    found, expected = by_layers(model, x, y), one_by_one(model, x, y)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)
        assert kind == "embedding-padded" or value.count_nonzero() > 0


def test_every_formula_is_tested():
    assert set(FORMULAS) <= {type(module) for build, _ in LAYERS.values() for module in build().modules()}


BUILT_IN = {
    "convnet-small": {"width": 4},
    "resnet9": {"width": 0.1},
    "resnet20": {},
    "wide-resnet": {"depth": 10, "width": 1},
    "wide-resnet-of-the-authors": {"depth": 10, "width": 1, "variant": "authors"},
    "cifarnet": {"width": 0.1},
    "mlp": {"width": 16},
    "linear": {},
}


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_networks_are_summed_by_layers(registry, name):
    torch.manual_seed(0)
    component = registry.get("model", name.removesuffix("-of-the-authors")).component
    model = component(component.Options(**BUILT_IN[name])).build((3, 16, 16), CLASSES).double().eval()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.running_mean.uniform_(-0.1, 0.1)
            module.running_var.uniform_(0.5, 2)
    x, y = torch.randn(4, 3, 16, 16, dtype=torch.float64), torch.tensor([0, 1, 2, 1])
    before = copy.deepcopy(model.state_dict())
    sums = square_sums_for(model, x, y)
    assert sums.func is per_sample.by_layers_or_vmap
    found = sums(x, y)
    for parameter, value in one_by_one(model, x, y).items():
        torch.testing.assert_close(found[parameter], value, rtol=1e-9, atol=1e-14)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert no_trace(model)


def no_trace(model):
    return all(parameter.grad is None for parameter in model.parameters()) and not any(
        module._forward_hooks or module._backward_hooks or module._forward_pre_hooks for module in model.modules()
    )


@pytest.mark.parametrize("build", [tied, frozen, Twice, Rooted, Borrowing, Unasked, Mixing])
def test_other_networks_are_summed_sample_by_sample(build):
    torch.manual_seed(0)
    model = nn.Sequential(build(), Summed()).double().eval()
    x, y = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    sums = square_sums_for(model, x, y)
    assert sums.func is per_sample.by_vmap
    found = sums(x, y)
    model.requires_grad_(True)
    for name, value in one_by_one(model, x, y).items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)
    assert no_trace(model)


def test_samples_that_are_treated_otherwise_are_summed_sample_by_sample():
    class Choosy(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x):
            return self.layer(self.layer(x)) if len(x) == 5 else self.layer(x)

    torch.manual_seed(0)
    model = nn.Sequential(Choosy(), Summed()).double().eval()
    x, y = torch.randn(5, 6, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    found = square_sums_for(model, x, y)(x, y)
    for name, value in by_vmap(model, x, y).items():
        torch.testing.assert_close(found[name], value, rtol=1e-12, atol=0.0)


def test_a_layer_whose_output_is_written_into_counts_as_it_was():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 6), Summed()).double()
    x, y = torch.randn(5, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0])
    found = by_layers(model, x, y)
    for name, value in one_by_one(model, x, y).items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)


def test_a_network_that_is_sure_of_itself_is_summed_by_layers():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 64), nn.ReLU(), nn.Linear(64, CLASSES))
    with torch.no_grad():
        model[2].weight *= 100
    x = torch.randn(5, 4)
    y = model(x).argmax(1)
    assert square_sums_for(model, x, y).func is per_sample.by_layers_or_vmap


def test_one_sample_is_enough():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), Summed()).double()
    x, y = torch.randn(1, 4, dtype=torch.float64), torch.tensor([2])
    found = square_sums_for(model, x, y)(x, y)
    for name, value in one_by_one(model, x, y).items():
        torch.testing.assert_close(found[name], value, rtol=1e-10, atol=1e-14)


def test_nothing_stays_where_a_network_fails():
    class Failing(nn.Module):
        def forward(self, x):
            raise ValueError("this network fails")

    model = nn.Sequential(nn.Linear(4, 6), Failing())
    assert layers_of(model)
    with pytest.raises(ValueError, match="this network fails"):
        by_layers(model, torch.randn(2, 4), torch.tensor([0, 1]))
    assert no_trace(model)


def test_gradients_that_are_there_stay():
    model = nn.Sequential(nn.Linear(4, CLASSES))
    model[0].weight.grad = torch.ones(CLASSES, 4)
    x, y = torch.randn(2, 4), torch.tensor([0, 1])
    with torch.no_grad():
        square_sums_for(model, x, y)(x, y)
    assert torch.equal(model[0].weight.grad, torch.ones(CLASSES, 4))
    assert model[0].bias.grad is None
