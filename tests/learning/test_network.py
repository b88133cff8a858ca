from __future__ import annotations

import pytest
import torch
from torch import nn

import cutk
from cutk.learning.network import copy_own_state, initialised, last_layers, layers, operations


class Tokens(nn.Module):
    """A module with a parameter of its own beside its children's, as a vision transformer has."""

    def __init__(self):
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 4))
        self.scale = nn.Parameter(torch.ones(4))
        self.head = nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 2))


def names(model, modules):
    known = {id(module): name for name, module in model.named_modules()}
    return [known[id(module)] for module in modules]


def test_norms_and_activations_go_with_the_layer_before_them():
    model = nn.Sequential(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU()),
        nn.Conv2d(2, 2, 3, bias=False),
        nn.BatchNorm2d(2, affine=False),
        nn.Flatten(),
        nn.Linear(2, 3),
    )
    assert [names(model, layer) for layer in layers(model)] == [["0.0", "0.1", "0.2"], ["1", "2", "3"], ["4"]]
    assert names(model, last_layers(model, 2)) == ["1", "2", "3", "4"]


def test_a_parameter_beside_children_makes_a_layer_without_taking_the_children_along():
    model = Tokens()
    assert [names(model, layer) for layer in layers(model)] == [["", "head.0"], ["head.1"]]


def test_what_comes_before_the_first_weight_belongs_to_it():
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Conv2d(1, 2, 3))
    assert [names(model, layer) for layer in layers(model)] == [["0", "1"]]


@pytest.mark.parametrize("count", [0, 3])
def test_layers_that_are_not_there(count):
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with pytest.raises(cutk.CellError, match=f"has 2 layers; expected 1 to 2 of them, got {count}"):
        last_layers(model, count)


def test_own_state_is_copied_and_the_childrens_is_not():
    source, target = Tokens(), Tokens()
    nn.init.ones_(source.token)
    nn.init.ones_(source.head[1].weight)
    before = target.head[1].weight.clone()
    copy_own_state(source, target)
    assert torch.equal(target.token, torch.ones(1, 1, 4))
    assert torch.equal(target.head[1].weight, before)


@pytest.mark.parametrize(("name", "count"), [("resnet9", 9), ("convnet-small", 4), ("resnet20", 20)])
def test_built_in_models_have_the_layers_they_are_said_to_have(registry, name, count):
    # Counted as their papers do: convolutions and the linear layer.
    model = registry.get("model", name).component().build((3, 32, 32), 10)
    assert len(layers(model)) == count
    assert names(model, last_layers(model, 1))[-1] == [n for n, _ in model.named_modules()][-1]


def test_a_network_is_initialised_with_samples_evenly_spaced(plain_set, monkeypatch):
    class Shown(nn.Flatten):
        def initialise(self, x):
            assert not torch.is_grad_enabled()
            self.shown = x

    train = plain_set()
    (whole,) = train.batches()
    assert torch.equal(initialised(Shown(), train).shown, whole.x)
    monkeypatch.setattr("cutk.learning.network.SHOWN", 3)
    assert torch.equal(initialised(Shown(), train, torch.tensor([0, 2, 3, 4, 5])).shown, whole.x[[0, 3, 5]])
    assert isinstance(initialised(nn.Flatten(), train), nn.Flatten)


def test_operations_are_two_for_each_weight_at_each_place():
    conv = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5))
    assert operations(conv, torch.zeros(2, 3, 4, 4)) == 2 * (3 * 8 * 9 * 16 + 128 * 5)
    grouped = nn.Conv2d(4, 8, 3, groups=2, stride=2, padding=1)
    assert operations(grouped, torch.zeros(2, 4, 8, 8)) == 2 * (2 * 8 * 9 * 16)
    # Of tokens, a linear layer's channels come last.
    assert operations(nn.Linear(6, 7), torch.zeros(2, 10, 6)) == 2 * 6 * 7 * 10
    assert not conv[0]._forward_hooks
