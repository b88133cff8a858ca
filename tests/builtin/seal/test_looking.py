"""What a model says of samples: features and places of networks of several kinds."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk_builtin.looking import alternatives, concerned, outputs, pooled, views
from cutk_builtin.recipes.sgd import Sgd


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_alternative_is_the_likeliest_other_class():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert alternatives(logits, torch.tensor([0, 1])).tolist() == [2, 0]


class Bare(nn.Module):
    """A network without a layer that has weights of its own in a module."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(4, 3, generator=seeded()))

    def forward(self, x):
        return x.flatten(1) @ self.w


def networks():
    return {
        "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 3)),
        "deep": lambda: nn.Sequential(nn.Flatten(), nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)),
        "convolution": lambda: nn.Sequential(nn.Conv2d(1, 3, 2), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        "bare": Bare,
    }


@pytest.mark.parametrize("network", networks())
def test_features_are_what_the_last_layer_is_given(network, images_of):
    recipe = Sgd(Sgd.Options(steps=1)).on("cpu")
    train = ResidentTrainSet(images_of(count=6, size=2), cutk.Normalisation((0.0,), (1.0,)))
    model = networks()[network]()
    found = outputs(model, recipe, train)
    (batch,) = train.batches()
    with torch.no_grad():
        assert torch.allclose(found.logits, model(batch.x))
        expected = {
            "linear": batch.x.flatten(1),
            "deep": model[:3](batch.x) if network == "deep" else None,
            "convolution": batch.x.flatten(2).mean(2),
            "bare": found.logits,
        }[network]
    assert torch.allclose(found.features, expected)
    assert not any(module._forward_pre_hooks for module in model.modules())


class HeadFirst(nn.Module):
    """A network whose last layer is registered first."""

    def __init__(self):
        super().__init__()
        self.head, self.body = nn.Linear(5, 3), nn.Linear(4, 5)

    def forward(self, x):
        return self.head(self.body(x.flatten(1)))


def test_the_last_layer_is_the_one_that_works_last(images_of):
    train = ResidentTrainSet(images_of(count=6, size=2), cutk.Normalisation((0.0,), (1.0,)))
    model = HeadFirst()
    found = outputs(model, Sgd(Sgd.Options(steps=1)).on("cpu"), train)
    (batch,) = train.batches()
    with torch.no_grad():
        assert torch.allclose(found.features, model.body(batch.x.flatten(1)))


def test_places_and_tokens_are_pooled_to_means_and_largest_values():
    given = torch.randn(2, 3, 2, 2, generator=seeded())
    expected = torch.cat([given.mean((2, 3)), given.amax((2, 3))], 1)
    assert torch.allclose(pooled(given, last=False), expected)
    assert torch.allclose(pooled(given.flatten(2), last=False), expected)
    assert torch.allclose(pooled(given.flatten(2).transpose(1, 2), last=True), expected)
    assert torch.allclose(pooled(given.movedim(1, -1), last=True), expected)
    assert all(torch.equal(pooled(given[:, :, 0, 0], last=last), given[:, :, 0, 0]) for last in (True, False))


@pytest.mark.parametrize(
    ("first", "places"),
    [
        (nn.Unflatten(1, (1, 64)), nn.Conv1d(1, 4, 3)),
        (nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 4, 3)),
        (nn.Unflatten(1, (1, 4, 4, 4)), nn.Conv3d(1, 4, 2)),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_features_are_told_from_places_by_the_layer(first, places, last):
    # Four features at each place, in the last dimension as ConvNeXt and Swin have them, or in the second.
    after = nn.Linear(4, 4) if last else type(places)(4, 4, 1)
    model = nn.Sequential(first, places, nn.ReLU(), *([MovedToTheEnd()] if last else []), after, nn.Flatten())
    samples = cutk.Samples(torch.randn(5, 64, generator=seeded()), torch.zeros(5, dtype=torch.int64), ("a",))
    train = ResidentTrainSet(samples, cutk.Normalisation.of(samples))
    recipe = Sgd(Sgd.Options(steps=1)).on("cpu")
    (batch,) = train.batches()
    with torch.no_grad():
        at = model[:3](batch.x).flatten(2)
    assert torch.allclose(views(model, recipe, train)[-1].features, torch.cat([at.mean(2), at.amax(2)], 1), atol=1e-6)
    assert torch.allclose(outputs(model, recipe, train).features, at.mean(2), atol=1e-6)


class MovedToTheEnd(nn.Module):
    """Puts features into the last dimension."""

    def forward(self, x):
        return x.movedim(1, -1)


def test_views_are_the_inputs_of_the_last_layers(images_of):
    train = ResidentTrainSet(images_of(count=6, size=4), cutk.Normalisation((0.0,), (1.0,)))
    model = nn.Sequential(
        *(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Conv2d(2, 3, 1), nn.Flatten()),
        *(nn.Linear(12, 5), nn.ReLU()),
        nn.Linear(5, 3),
    )
    found = views(model, Sgd(Sgd.Options(steps=1)).on("cpu"), train)
    (batch,) = train.batches()
    with torch.no_grad():
        expected = [pooled(model[:2](batch.x), last=False), model[:4](batch.x), model[:6](batch.x)]
        for view, features in zip(found, expected, strict=True):
            assert torch.allclose(view.features, features)
            assert torch.allclose(view.logits, model(batch.x))
    assert not any(module._forward_pre_hooks for module in model.modules())


@pytest.mark.parametrize("network", networks())
def test_views_have_features_of_any_network(network, images_of):
    train = ResidentTrainSet(images_of(count=6, size=2), cutk.Normalisation((0.0,), (1.0,)))
    found = views(networks()[network](), Sgd(Sgd.Options(steps=1)).on("cpu"), train)
    assert all(len(view.features) == len(view.logits) == 6 and view.features.ndim == 2 for view in found)


def test_a_second_visit_sees_augmented_samples(images_of):
    normalisation, recipe = cutk.Normalisation((0.0,), (1.0,)), Sgd(Sgd.Options(steps=1)).on("cpu")
    model = networks()["linear"]()
    augmented = ResidentTrainSet(images_of(count=6, size=2), normalisation, cutk.Augmentation(0, flip=True))
    (view,) = views(model, recipe, augmented, visits=2)
    (batch,) = augmented.batches()
    straight = batch.x.flatten(1)
    mirrored = (straight + batch.x.flip(3).flatten(1)) / 2
    each = torch.isclose(view.features, straight).all(1), torch.isclose(view.features, mirrored).all(1)
    assert (each[0] | each[1]).all()
    assert (each[1] & ~each[0]).any()
    assert augmented.drawn == 6 * 3
    plain = ResidentTrainSet(images_of(count=6, size=2), normalisation)
    views(model, recipe, plain, visits=2)
    assert plain.drawn == 6


def test_samples_whose_label_nobody_knows_to_be_bad_are_not_looked_at(images_of):
    train = ResidentTrainSet(images_of(count=6, size=2), cutk.Normalisation((0.0,), (1.0,)))
    model, recipe = networks()["linear"](), Sgd(Sgd.Options(steps=1)).on("cpu")
    every = views(model, recipe, train)
    drawn, some = train.drawn, torch.tensor([1, 4])
    for part, whole in zip(views(model, recipe, train, some), every, strict=True):
        for mine, all_of_them in zip(part, whole, strict=True):
            assert torch.allclose(mine, all_of_them[some])
    assert train.drawn == drawn + 2


def test_who_may_be_bad_has_a_label_of_somebody_known(task):
    call = task.private(seed=3)
    labels = call.train.labels[call.identified].tolist()
    expected = [number for number, label in enumerate(call.train.labels.tolist()) if label in labels]
    assert concerned(call).tolist() == expected
    assert 0 < len(expected) < len(call.train)


@pytest.mark.parametrize("network", networks())
def test_all_batches_are_looked_at(network, images_of):
    recipe = Sgd(Sgd.Options(steps=1)).on("cpu")
    train = ResidentTrainSet(images_of(count=5000, size=2), cutk.Normalisation((0.0,), (1.0,)))
    assert len(list(train.batches())) > 1
    found = outputs(networks()[network](), recipe, train)
    assert (len(found.features), len(found.logits)) == (5000, 5000)
