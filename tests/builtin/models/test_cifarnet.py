from __future__ import annotations

import numpy as np
import pytest
import torch

import cutk
from cutk_builtin.models.cifarnet import CifarNet, whitening_filters
from cutk_builtin.recipes.fast import Fast


def noise(count=40, channels=3, size=9):
    return torch.randn(count, channels, size, size, generator=torch.Generator().manual_seed(0))


def patches_of(x):
    """Every 2×2 patch, channels first, in NumPy."""
    x = x.double().numpy()
    rows = [x[:, :, i : i + 2, j : j + 2] for i in range(x.shape[2] - 1) for j in range(x.shape[3] - 1)]
    return np.concatenate([row.reshape(len(x), -1) for row in rows])


def test_the_filters_whiten_the_patches():
    x = noise()
    x[:, 1] = 0.8 * x[:, 0] + 0.2 * x[:, 1]  # something to decorrelate
    filters = whitening_filters(x, eps=0.0)
    assert filters.shape == (24, 3, 2, 2)
    assert torch.equal(filters[12:], -filters[:12])
    patches = patches_of(x)
    out = patches @ filters[:12].reshape(12, -1).double().numpy().T
    assert np.allclose(out.T @ out / len(out), np.eye(12), atol=1e-4)
    # The largest of the patches' directions comes first.
    values = np.linalg.eigvalsh(patches.T @ patches / len(patches))[::-1]
    assert np.allclose(1 / np.linalg.norm(filters[:12].reshape(12, -1).numpy(), axis=1) ** 2, values, rtol=1e-4)


def test_what_does_not_vary_is_not_blown_up():
    assert torch.isfinite(whitening_filters(torch.zeros(2, 1, 4, 4))).all()


def test_cifarnet_has_the_parameters_that_its_layers_add_up_to():
    model = CifarNet(CifarNet.Options(width=1.0)).build((3, 32, 32), 10)
    widths = [(24, 64), (64, 64), (64, 256), (256, 256), (256, 256), (256, 256)]
    # Kernels of nine, a bias for each norm, the whitening's bias; its filters are no parameters.
    assert sum(p.numel() for p in model.parameters()) == sum(9 * i * o + o for i, o in widths) + 24 + 2560
    assert model[0].weight.shape == (24, 3, 2, 2)
    assert "0.weight" in model.state_dict()


def test_cifarnet_follows_its_width_and_refuses_small_images():
    model = CifarNet(CifarNet.Options(width=0.1)).build((1, 9, 12), 3)
    assert model(noise(2, 1, 12)[:, :, :9]).shape == (2, 3)
    with pytest.raises(cutk.UsageError, match="at least 9×9 pixels, got 8×9"):
        CifarNet().build((3, 8, 9), 10)


def test_convolutions_start_by_passing_their_input_on():
    kernel = CifarNet().build((3, 32, 32), 10)[2][0].weight
    x = noise(1, 24)
    assert torch.allclose(torch.nn.functional.conv2d(x, kernel, padding=1)[:, :24], x, atol=1e-6)


def test_the_norms_have_a_bias_and_no_scale():
    norm = CifarNet().build((3, 32, 32), 10)[2][2]
    x = noise(20, 32) * 3 + 1
    with torch.no_grad():
        norm.bias.fill_(0.5)
    out = norm.train()(x)
    assert torch.allclose(out.mean((0, 2, 3)), torch.tensor(0.5), atol=1e-4)
    assert torch.allclose(out.std((0, 2, 3)), torch.tensor(1.0), atol=1e-2)
    assert torch.allclose(norm.running_mean, 0.4 * x.mean((0, 2, 3)), atol=1e-5)
    assert torch.equal(norm.eval()(x[:5]), norm(x)[:5])


def test_training_samples_set_the_whitening(images_of, plain_set):
    network = CifarNet(CifarNet.Options(width=0.1)).build((1, 12, 12), 3)
    train = plain_set(images_of(count=9, size=12))
    model = cutk.Task(network, train, torch.tensor([0]), Fast(), build=lambda: network).fresh(torch.arange(2, 9))
    (batch,) = train.batches(torch.arange(2, 9))
    assert torch.allclose(model[0].weight, whitening_filters(batch.x))
