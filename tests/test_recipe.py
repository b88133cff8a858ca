from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import cutk
from cutk.learning.recipe import Recipe, RecipeOptions, learning_rate
from cutk.machine import choose_device, choose_precision


def test_the_schedule_by_hand():
    # 8 steps, a quarter of them rising: w = 2, T = 10.
    rates = [learning_rate(step, 8, 0.6, t_mult=1.25, warmup=0.25) for step in range(8)]
    by_hand = [0.2, 0.4, 0.6, 0.6 * 7 / 8, 0.6 * 6 / 8, 0.6 * 5 / 8, 0.6 * 4 / 8, 0.6 * 3 / 8]
    assert rates == pytest.approx(by_hand)


def test_the_papers_schedule_by_hand():
    # 4,000 steps: w = 40, T = 5,000.
    assert learning_rate(0, 4000, 0.025) == pytest.approx(0.025 / 41)
    assert learning_rate(39, 4000, 0.025) == pytest.approx(0.025 * 40 / 41)
    assert learning_rate(40, 4000, 0.025) == pytest.approx(0.025)
    assert learning_rate(3999, 4000, 0.025) == pytest.approx(0.025 * (1 - 3959 / 4960))


def test_training_equals_sgd_written_out_in_numpy(images_of, plain_set):
    images = images_of(count=6, size=2)
    samples = plain_set(images)
    options = RecipeOptions(steps=4, batch_size=3, lr=0.5, momentum=0.9, weight_decay=0.01, crop_padding=0, flip=False)
    recipe = Recipe(options, torch.device("cpu"))
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    weight = model[1].weight.detach().double().numpy().copy()
    recipe.fit(model, samples.batches(None, 3, steps=4), steps=4)

    velocity = np.zeros_like(weight)
    x_all = images.pixels.double().numpy().reshape(6, 4) / 255
    y_all = images.labels.numpy()
    for step, part in enumerate([[0, 1, 2], [3, 4, 5], [0, 1, 2], [3, 4, 5]]):
        x, y = x_all[part], y_all[part]
        scores = np.exp(x @ weight.T)
        probabilities = scores / scores.sum(1, keepdims=True)
        gradient = (probabilities - np.eye(3)[y]).T @ x / 3 + 0.01 * weight
        velocity = gradient if step == 0 else 0.9 * velocity + gradient
        weight = weight - learning_rate(step, 4, 0.5) * velocity
    np.testing.assert_allclose(model[1].weight.detach().numpy(), weight, rtol=1e-4)


def test_only_the_given_parameters_are_trained(plain_set, tiny_recipe):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4), nn.Linear(4, 3))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tiny_recipe.fit(model, plain_set().batches(None, 5, steps=3), steps=3, modules=[model[2]])
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"2.weight", "2.bias"}
    assert not model.training


def test_divergence_is_an_error_and_not_a_model(plain_set, tiny_recipe):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    with pytest.raises(cutk.CellError, match=r"Training diverged.*smaller lr"):
        tiny_recipe.fit(
            model, plain_set().batches(None, 5, steps=50), lambda out, b: (out**2).mean(), steps=50, lr=1e30
        )


def test_outputs_that_are_not_finite_are_no_predictions(plain_set, tiny_recipe):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    nn.init.constant_(model[1].weight, float("inf"))
    with pytest.raises(cutk.CellError, match="not finite"):
        tiny_recipe.predict(model, plain_set())


def test_predictions_are_in_order_and_without_gradients(plain_set, tiny_recipe):
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    samples = plain_set()
    (batch,) = samples.batches()
    with torch.no_grad():
        expected = model(batch.x).argmax(1)
    assert torch.equal(tiny_recipe.predict(model, samples), expected)
    assert torch.equal(tiny_recipe.predict(model, samples, torch.tensor([7, 3])), expected[[7, 3]])


def test_bf16_keeps_weights_in_float32(plain_set):
    recipe = Recipe(RecipeOptions(steps=2, batch_size=4), torch.device("cpu"), "bf16")
    model = recipe.train(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), plain_set(), steps=2)
    assert {value.dtype for value in model.state_dict().values()} == {torch.float32}
    assert recipe.logits(model, plain_set()).dtype == torch.float32


def test_precision_is_chosen_by_asking_the_machine(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True}, raising=False)
    assert choose_precision("auto", cpu) == "bf16"
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": False}, raising=False)
    assert choose_precision("auto", cpu) == "fp32"
    assert choose_precision("bf16", cpu) == "bf16"
    with pytest.raises(cutk.UsageError, match="expected one of auto, fp32, bf16, got 'half'"):
        choose_precision("half", cpu)


def test_a_device_that_is_not_there_is_one_line():
    with pytest.raises(cutk.UsageError, match="Device 'warp' cannot be used here") as error:
        choose_device("warp")
    assert "\n" not in str(error.value)
