from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cutk
from cutk.plugins.checks import problem_with
from cutk.plugins.registry import load_registry

# Recipes of third parties: a file each, as an author would write it.
SMOOTHED = '''
import cutk, torch

class Smoothed(cutk.Recipe):
    """Plain SGD on softened labels."""
    name = "smoothed"

    class Options(cutk.RecipeOptions):
        smoothing: float = cutk.option(0.1, ge=0, lt=1, help="what of a label goes to all classes alike")

    def loss(self, logits, batch):
        return torch.nn.functional.cross_entropy(logits, batch.y, label_smoothing=self.options.smoothing)

    def optimisers(self, parameters, lr):
        return [torch.optim.SGD(parameters.values(), lr=lr)]

@cutk.hookimpl
def cutk_recipes():
    return [Smoothed]
'''
ORTHOGONAL = '''
import cutk, torch

class Orthogonal(torch.optim.Optimizer):
    """Steps along the nearest orthogonal matrix to the gradient, as Muon does, here by an exact SVD."""

    def __init__(self, params, lr):
        super().__init__(params, {"lr": lr})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                u, _, v = torch.linalg.svd(p.grad, full_matrices=False)
                p -= group["lr"] * u @ v

class MuonLike(cutk.Recipe):
    """Orthogonal steps for hidden matrices, Adam for all else, both falling to zero."""
    name = "muon-like"

    def optimisers(self, parameters, lr):
        hidden = {n: p for n, p in parameters.items() if p.ndim == 2 and not n.startswith("head")}
        rest = [p for n, p in parameters.items() if n not in hidden]
        found = [Orthogonal(hidden.values(), lr)] if hidden else []
        return [*found, torch.optim.Adam(rest, lr=lr / 10)]

    def rate(self, step, steps):
        return 1 - step / steps

@cutk.hookimpl
def cutk_recipes():
    return [MuonLike]
'''


@pytest.fixture
def third_party(tmp_path):
    """Load a recipe from a file, as ``--plugin`` does."""

    def load(source, name):
        (tmp_path / "theirs.py").write_text(source)
        registry = load_registry({"CUTK_PLUGINS": ""}, inline=[tmp_path / "theirs.py"])
        assert not registry.failures
        return registry.get("recipe", name).component

    return load


class Plain(cutk.Recipe):
    """Plain SGD at a constant rate."""

    name = "plain"

    def optimisers(self, parameters, lr):
        return [torch.optim.SGD(parameters.values(), lr=lr)]


def linear(inputs=64, classes=3):
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, classes, bias=False))


def softmax_gradient(weight, x, targets):
    """Return the gradient of mean cross-entropy for a linear model, by hand."""
    scores = np.exp(x @ weight.T)
    return (scores / scores.sum(1, keepdims=True) - targets).T @ x / len(x)


def numbers(samples):
    """Return what a linear model sees of images that are only scaled to 0 … 1."""
    return samples.x.double().numpy().reshape(len(samples), -1) / 255, np.eye(len(samples.classes))[samples.labels]


def test_label_smoothing_is_a_recipe_of_a_third_party(third_party, images_of, plain_set):
    images = images_of(count=6, size=2)
    recipe = third_party(SMOOTHED, "smoothed")
    model = linear(4)
    weight = model[1].weight.detach().double().numpy().copy()
    options = recipe.Options(steps=3, batch_size=6, lr=0.5, smoothing=0.2, crop_padding=0, flip=False)
    recipe(options).fit(model, plain_set(images).batches(None, 6, steps=3), steps=3)
    x, y = numbers(images)
    for _ in range(3):
        weight = weight - 0.5 * softmax_gradient(weight, x, 0.8 * y + 0.2 / 3)
    np.testing.assert_allclose(model[1].weight.detach().numpy(), weight, rtol=1e-4)


def test_the_loss_of_the_recipe_gives_way_to_an_unlearners(third_party, plain_set):
    recipe = third_party(SMOOTHED, "smoothed")()
    seen = []

    def mine(logits, batch):
        seen.append(len(batch.y))
        return cutk.cross_entropy(logits, batch)

    recipe.fit(linear(), plain_set().batches(None, 5, steps=2), mine, steps=2)
    assert seen == [5, 5]


def test_two_optimisers_are_a_recipe_of_a_third_party(third_party, images_of, plain_set):
    recipe = third_party(ORTHOGONAL, "muon-like")
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("flat", nn.Flatten())
    model.add_module("hidden", nn.Linear(4, 2, bias=False))
    model.add_module("head", nn.Linear(2, 3))
    hidden, head = model.hidden.weight.detach().clone(), model.head.weight.detach().clone()
    (batch,) = plain_set(images_of(count=6, size=2)).batches(None, 6)
    cutk.cross_entropy(model(batch.x), batch).backward()
    gradient, steps = model.hidden.weight.grad.double().numpy(), 2
    recipe(recipe.Options(lr=0.5, steps=steps)).fit(model, [batch], steps=steps)
    u, _, v = np.linalg.svd(gradient, full_matrices=False)
    np.testing.assert_allclose(model.hidden.weight.detach().numpy(), hidden.numpy() - 0.5 * u @ v, atol=1e-4)
    # Adam's first step is its rate, whatever the gradient's size.
    moved = (model.head.weight.detach() - head).abs()
    torch.testing.assert_close(moved, torch.full_like(moved, 0.05), rtol=1e-3, atol=0)


def test_the_rate_scales_what_each_group_was_made_with(plain_set):
    seen = []

    class Watched(torch.optim.SGD):
        def step(self):
            seen.append([group["lr"] for group in self.param_groups])
            super().step()

    class TwoGroups(cutk.Recipe):
        """Two rates."""

        name = "two-groups"

        def optimisers(self, parameters, lr):
            return [Watched([{"params": [p], "lr": lr / (1 + i)} for i, p in enumerate(parameters.values())], lr=lr)]

        def rate(self, step, steps):
            return 1 - step / steps

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    TwoGroups().fit(model, plain_set().batches(None, 5, steps=4), steps=4, lr=0.4)
    assert seen == [pytest.approx([0.4 * r, 0.2 * r]) for r in (1, 0.75, 0.5, 0.25)]


def test_parameters_come_by_name_and_only_those_that_are_trained(plain_set):
    asked = []

    class Asking(Plain):
        def optimisers(self, parameters, lr):
            asked.append(list(parameters))
            return super().optimisers(parameters, lr)

    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    recipe = Asking()
    recipe.fit(model, plain_set().batches(None, 5, steps=3), steps=3, modules=[model[3]])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"3.weight", "3.bias"}
    assert not model.training
    recipe.fit(model, plain_set().batches(None, 5, steps=1), steps=1)
    assert asked == [["3.weight", "3.bias"], list(dict(model.named_parameters()))]


@pytest.mark.parametrize(("returned", "came"), [([], "none"), (None, "NoneType"), ([3], "int")])
def test_what_are_no_optimisers_is_said(plain_set, returned, came):
    class Wrong(cutk.Recipe):
        """Wrong."""

        name = "wrong"

        def optimisers(self, parameters, lr):
            return returned

    with pytest.raises(cutk.CellError, match=f"Recipe 'wrong': expected optimisers.. to return torch .*, got {came}."):
        Wrong().fit(linear(), plain_set().batches(None, 5, steps=1), steps=1)


def test_one_optimiser_alone_will_do(plain_set):
    class Alone(Plain):
        def optimisers(self, parameters, lr):
            return super().optimisers(parameters, lr)[0]

    model = linear()
    before = model[1].weight.detach().clone()
    Alone().fit(model, plain_set().batches(None, 5, steps=1), steps=1)
    assert not torch.equal(model[1].weight, before)


@pytest.mark.parametrize("method", ["fit", "train", "logits", "predict", "on"])
def test_the_training_loop_is_final(method):
    changed = type("Changed", (Plain,), {method: lambda self, *args, **kwargs: None})
    assert problem_with(changed, "recipe").startswith(f"'Changed' overrides {method}(), which others rely on")
    assert problem_with(Plain, "recipe") is None


def test_options_of_a_recipe_derive_from_all_recipes_options():
    class Odd(Plain):
        class Options(cutk.Options):
            """No steps."""

    assert problem_with(Odd, "recipe") == "'Odd.Options' is no subclass of cutk.RecipeOptions"


def test_a_recipe_elsewhere_is_another_recipe():
    recipe = Plain(Plain.Options(lr=0.5))
    other = recipe.on("meta", "bf16")
    assert (str(other.device), other.precision, other.options) == ("meta", "bf16", recipe.options)
    assert (str(recipe.device), recipe.precision) == ("cpu", "fp32")
    other.options.__dict__["lr"] = 7.0
    assert recipe.options.lr == 0.5


def test_divergence_is_an_error_and_not_a_model(plain_set):
    with pytest.raises(cutk.CellError, match=r"Training diverged.*smaller lr"):
        Plain().fit(linear(), plain_set().batches(None, 5, steps=50), lambda out, b: (out**2).mean(), steps=50, lr=1e30)


def test_outputs_that_are_not_finite_are_no_predictions(plain_set):
    model = linear()
    nn.init.constant_(model[1].weight, float("inf"))
    with pytest.raises(cutk.CellError, match="not finite"):
        Plain().predict(model, plain_set())


def test_predictions_are_in_order_and_without_gradients(plain_set):
    model, samples = linear(), plain_set()
    (batch,) = samples.batches()
    with torch.no_grad():
        expected = model(batch.x).argmax(1)
    assert torch.equal(Plain().predict(model, samples), expected)
    assert torch.equal(Plain().predict(model, samples, torch.tensor([7, 3])), expected[[7, 3]])
    assert Plain().predict(model, samples, torch.tensor([], dtype=torch.int64)).shape == (0,)


def test_bf16_keeps_weights_in_float32(plain_set):
    recipe = Plain(Plain.Options(steps=2, batch_size=4)).on("cpu", "bf16")
    model = recipe.train(linear(), plain_set(), steps=2)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert recipe.logits(model, plain_set()).dtype == torch.float32
