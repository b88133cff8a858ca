"""Each recipe against its paper's equations, written out in NumPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from cutk_builtin.recipes.adamw import AdamW, cosine_rate
from cutk_builtin.recipes.fast import QUINTIC, Fast, Muon, orthogonalised
from cutk_builtin.recipes.sgd import Sgd, linear_rate


def gradient(weight, bias, x, y):
    """Return the gradients of mean cross-entropy for a linear model."""
    scores = np.exp(x @ weight.T + bias)
    error = (scores / scores.sum(1, keepdims=True) - y) / len(x)
    return error.T @ x, error.sum(0)


@pytest.fixture
def fitted(images_of, plain_set):
    """Fit a linear model; return its weights before and after, and the batches in NumPy."""

    def fit(recipe, steps):
        images = images_of(count=6, size=2)
        model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
        before = [p.detach().double().numpy().copy() for p in model.parameters()]
        recipe.fit(model, plain_set(images).batches(None, 3, steps=steps), steps=steps)
        after = [p.detach().numpy() for p in model.parameters()]
        x, y = images.x.double().numpy().reshape(6, 4) / 255, np.eye(3)[images.labels.numpy()]
        parts = [slice(0, 3), slice(3, 6)] * steps
        return before, after, [(x[part], y[part]) for part in parts[:steps]]

    return fit


def test_the_linear_schedule_by_hand():
    # 8 steps, a quarter of them rising: w = 2, T = 10.
    rates = [linear_rate(step, 8, t_mult=1.25, warmup=0.25) for step in range(8)]
    assert rates == pytest.approx([1 / 3, 2 / 3, 1.0, 0.9, 0.8, 0.7, 0.6, 0.5])


def test_the_papers_schedule_by_hand():
    # 4,000 steps: w = 40, T = 5,000.
    assert linear_rate(0, 4000) == pytest.approx(1 / 41)
    assert linear_rate(39, 4000) == pytest.approx(40 / 41)
    assert linear_rate(40, 4000) == 1
    assert linear_rate(3999, 4000) == pytest.approx(1 - 3959 / 5000)


def test_the_cosine_by_hand():
    # 8 steps, a quarter of them rising: from step 2 on, half a turn in 6 steps.
    rates = [cosine_rate(step, 8, warmup=0.25) for step in range(8)]
    half = math.sqrt(3) / 2
    by_hand = [1 / 3, 2 / 3, 1.0, (1 + half) / 2, 0.75, 0.5, 0.25, (1 - half) / 2]
    assert rates == pytest.approx(by_hand)
    assert cosine_rate(0, 1) == 1


def test_sgd_equals_sgd_written_out(fitted):
    options = Sgd.Options(lr=0.5, momentum=0.9, weight_decay=0.01, warmup=0.25)
    (weight, bias), after, batches = fitted(Sgd(options), 5)
    speed_w, speed_b = np.zeros_like(weight), np.zeros_like(bias)
    # w = 1, T = 6.25
    for (x, y), rate in zip(batches, [1 / 2, 1, 1 - 1 / 6.25, 1 - 2 / 6.25, 1 - 3 / 6.25], strict=True):
        grad_w, grad_b = gradient(weight, bias, x, y)
        speed_w = 0.9 * speed_w + grad_w + 0.01 * weight
        speed_b = 0.9 * speed_b + grad_b + 0.01 * bias
        weight, bias = weight - 0.5 * rate * speed_w, bias - 0.5 * rate * speed_b
    np.testing.assert_allclose(after[0], weight, rtol=1e-4)
    np.testing.assert_allclose(after[1], bias, rtol=1e-4)


def test_adamw_equals_algorithm_2_written_out(fitted):
    options = AdamW.Options(lr=0.05, weight_decay=0.1, beta1=0.8, beta2=0.9, warmup=0.25)
    (weight, bias), after, batches = fitted(AdamW(options), 5)
    value, mean, square = [weight, bias], [0.0, 0.0], [0.0, 0.0]
    # Decoupled decay, of the matrix alone; w = 1, then half a turn in 4 steps.
    for step, (x, y) in enumerate(batches):
        rate = 0.05 * (1 / 2 if step == 0 else (1 + math.cos(math.pi * (step - 1) / 4)) / 2)
        for i, grad in enumerate(gradient(*value, x, y)):
            mean[i] = 0.8 * mean[i] + 0.2 * grad
            square[i] = 0.9 * square[i] + 0.1 * grad**2
            towards = mean[i] / (1 - 0.8 ** (step + 1))
            size = np.sqrt(square[i] / (1 - 0.9 ** (step + 1))) + 1e-8
            value[i] = value[i] - rate * (towards / size + (0.1 if i == 0 else 0.0) * value[i])
    np.testing.assert_allclose(after[0], value[0], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(after[1], value[1], rtol=1e-4, atol=1e-6)


# Muon and the recipe that uses it.


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4), (1, 7)])
def test_orthogonalising_moves_singular_values_by_the_quintic_and_keeps_the_vectors(shape):
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(1))
    u, s, v = np.linalg.svd(matrix.double().numpy(), full_matrices=False)
    s = s / np.linalg.norm(s)
    a, b, c = QUINTIC
    for _ in range(3):
        s = a * s + b * s**3 + c * s**5
    assert orthogonalised(matrix, eps=0.0).numpy() == pytest.approx(u @ np.diag(s) @ v, abs=1e-4)


def test_orthogonalising_nothing_gives_nothing():
    assert torch.equal(orthogonalised(torch.zeros(2, 3)), torch.zeros(2, 3))


def test_two_steps_of_muon_by_hand():
    kernel = nn.Parameter(torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(0)))
    gradients = [torch.randn(4, 2, 3, 3, generator=torch.Generator().manual_seed(seed)) for seed in (1, 2)]
    expected, mean = kernel.detach().clone(), torch.zeros(4, 2, 3, 3)
    optimiser = Muon([kernel], lr=0.1, momentum=0.6)
    for gradient in gradients:
        kernel.grad = gradient.clone()
        optimiser.step()
        mean = 0.6 * mean + gradient
        ahead = orthogonalised((gradient + 0.6 * mean).reshape(4, 18)).reshape(4, 2, 3, 3)
        expected = expected * 2 / expected.norm() - 0.1 * ahead  # the root of four filters
    assert torch.allclose(kernel, expected, atol=1e-6)


def test_muon_leaves_what_has_no_gradient():
    kernel = nn.Parameter(torch.ones(1, 1, 2, 2))
    Muon([kernel], lr=0.1).step()
    assert torch.equal(kernel, torch.ones(1, 1, 2, 2))


def test_fast_gives_kernels_to_muon_and_the_rest_to_adamw():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 3))
    parameters = dict(net.named_parameters())
    muon, adamw = Fast().optimisers(parameters, 0.06)
    assert (type(muon), muon.param_groups[0]["lr"]) == (Muon, 0.06)
    assert muon.param_groups[0]["params"] == [net[0].weight]
    # At half the peak of one, the other is at half of its own.
    assert (type(adamw), adamw.param_groups[0]["lr"]) == (torch.optim.AdamW, pytest.approx(0.01))
    assert len(adamw.param_groups[0]["params"]) == 5
    assert [type(o) for o in Fast().optimisers({"b": net[3].bias}, 0.1)] == [torch.optim.AdamW]


def test_fasts_loss_and_schedule_by_hand(plain_set):
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    (batch,) = plain_set().batches(torch.tensor([0]))
    smoothed = np.full(3, 0.2 / 3)
    smoothed[int(batch.y)] += 0.8
    scores = np.array([2.0, 0.0, -1.0])
    by_hand = -(smoothed * (scores - np.log(np.exp(scores).sum()))).sum()
    assert float(Fast().loss(logits, batch)) == pytest.approx(by_hand, rel=1e-5)
    assert [Fast().rate(step, 4) for step in range(4)] == [1, 0.75, 0.5, 0.25]
