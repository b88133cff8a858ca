from __future__ import annotations

import pytest
import torch
from torch import nn

import cutk
from cutk_builtin.models.mlp import Linear, Mlp


@pytest.mark.parametrize("shape", [(30,), (1,), (1, 8, 8), (3, 5, 4)])
@pytest.mark.parametrize("model", [Linear(), Mlp(), Mlp(Mlp.Options(width=7, depth=1))], ids=["linear", "mlp", "small"])
def test_features_and_images_are_taken(model, shape):
    network = model.build(shape, 6)
    logits = network(torch.randn(9, *shape))
    assert logits.shape == (9, 6)
    assert logits.dtype == torch.float32


def test_linear_is_softmax_regression():
    network = Linear().build((2, 3, 4), 5)
    (weight, bias) = network.parameters()
    x = torch.randn(7, 2, 3, 4)
    torch.testing.assert_close(network(x), torch.einsum("bchw,kchw->bk", x, weight.view(5, 2, 3, 4)) + bias)
    # The layout in which images arrive is another one, and changes nothing.
    torch.testing.assert_close(network(x.contiguous(memory_format=torch.channels_last)), network(x))


def test_an_mlp_is_what_it_says():
    network = Mlp(Mlp.Options(width=4, depth=2)).build((3,), 2)
    w1, b1, w2, b2, w3, b3 = network.parameters()
    assert [tuple(weight.shape) for weight in (w1, w2, w3)] == [(4, 3), (4, 4), (2, 4)]
    x = torch.randn(5, 3)
    hidden = ((x @ w1.T + b1).clamp(min=0) @ w2.T + b2).clamp(min=0)
    torch.testing.assert_close(network(x), hidden @ w3.T + b3)


@pytest.mark.parametrize("depth", [1, 3])
def test_its_depth_counts_hidden_layers(depth):
    network = Mlp(Mlp.Options(depth=depth)).build((3,), 2)
    assert sum(isinstance(module, nn.Linear) for module in network.modules()) == depth + 1


@pytest.mark.parametrize("model", [Linear, Mlp])
def test_tokens_are_refused(model):
    network = model().build((6,), 3)
    with pytest.raises(cutk.UsageError) as error:
        network(torch.zeros(2, 6, dtype=torch.int64))
    assert str(error.value) == (
        "The models mlp and linear take features (float32 [D]) or images (channels, height, width), and these samples "
        "are tokens (int64 [6]). Choose another with --model."
    )


@pytest.mark.parametrize("dataset", ["breast-cancer", "digits"])
def test_a_real_dataset_is_learnt(registry, dataset):
    """A few hundred steps with the recipe that the dataset suggests get well beyond the most frequent class."""
    from cutk.data.batches import ResidentTrainSet

    component = registry.get("dataset", dataset).component
    splits = component().load()
    sgd = registry.get("recipe", "sgd").component
    recipe = sgd(sgd.Options(**component.recipe, **component.suggests["sgd"]))
    normalisation = cutk.Normalisation.of(splits.train)
    train, test = (ResidentTrainSet(part, normalisation) for part in (splits.train, splits.test))
    for model, least in ((Mlp(), 0.93), (Linear(), 0.9)):
        torch.manual_seed(0)
        network = model.build(splits.train.shape, len(splits.train.classes))
        recipe.fit(
            network,
            train.batches(None, recipe.options.batch_size, shuffle=True, steps=recipe.options.steps),
            steps=recipe.options.steps,
        )
        with torch.no_grad():
            hits = [(network.eval()(batch.x).argmax(1) == batch.y) for batch in test.batches()]
        assert torch.cat(hits).double().mean() > least


# Networks for images say so.


@pytest.mark.parametrize(
    "name",
    ["convnet-small", "resnet9", "resnet20", "torchvision", "timm", "wide-resnet"],
)
def test_features_are_refused_by_networks_for_images(registry, name):
    with pytest.raises(cutk.UsageError) as error:
        registry.get("model", name).component().build((30,), 2)
    assert str(error.value) == (
        f"The model '{name}' needs images (channels, height, width), and these samples have the shape [30]. "
        "Choose one for features with --model."
    )
