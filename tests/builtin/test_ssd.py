from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import cutk
from cutk_builtin.recipes.sgd import Sgd
from cutk_builtin.unlearners.ssd import (
    RATIO_EDGES,
    SSD,
    Importances,
    batch_importance,
    dampen,
    margins_of,
    ratio_counts,
    rest,
    sample_importance,
    softened,
    temperature_for,
)


def test_dampening_by_hand():
    parameter = nn.Parameter(torch.tensor([2.0, 2.0, 2.0, 2.0, -2.0, 2.0]))
    #            ratio I_f / I_r:        1    10    20    ∞    40    0/0
    forget = torch.tensor([1.0, 10.0, 20.0, 5.0, 40.0, 0.0])
    retain = torch.tensor([1.0, 1.0, 1.0, 0.0, 1.0, 0.0])
    importances = Importances({"w": forget}, {"w": retain})
    changed = dampen([("w", parameter)], importances, selection_weight=10, dampening=15)
    # Selected: ratio > 10, strictly. Factor min(1, 15 / ratio): 20 → 0.75, ∞ → 0, 40 → 0.375.
    assert parameter.tolist() == [2.0, 2.0, 1.5, 0.0, -0.75, 2.0]
    assert changed == 3


def test_importance_ratios_are_counted_by_hand():
    #        ratio I_f / I_r:      0    1e-5  1.0  1.1    800   ∞    0/0
    forget = torch.tensor([0.0, 1e-5, 1.0, 1.1, 800.0, 5.0, 0.0])
    retain = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    counts = ratio_counts(Importances({"w": forget}, {"w": retain}))
    found = {f"{edge:.4g}": int(n) for edge, n in zip(RATIO_EDGES.tolist(), counts, strict=True) if n}
    assert found == {"0": 2, "1": 2, "794.3": 1, "1e+08": 1}


def test_dampening_never_enlarges():
    parameter = nn.Parameter(torch.tensor([3.0]))
    importances = Importances({"w": torch.tensor([2.0])}, {"w": torch.tensor([1.0])})
    assert dampen([("w", parameter)], importances, selection_weight=1, dampening=100) == 0
    assert parameter.item() == 3.0


def linear_model():
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    return model, model[1].weight.detach().double().numpy(), model[1].bias.detach().double().numpy()


def gradients(weight, bias, x, y):
    """Each sample's cross-entropy gradient of a linear classifier, in closed form: (p − e_y) xᵀ."""
    scores = np.exp(x @ weight.T + bias)
    error = scores / scores.sum(1, keepdims=True) - np.eye(3)[y]
    return error[:, :, None] * x[:, None, :], error


@pytest.fixture
def problem(images_of, plain_set):
    images = images_of(count=7, size=2)
    x = images.x.double().numpy().reshape(7, 4) / 255
    return plain_set(images), x, images.labels.numpy()


def test_batch_importance_equals_the_closed_form(problem):
    samples, x, y = problem
    model, weight, bias = linear_model()
    found = batch_importance(model, samples.batches(None, 3))
    of_weight, of_bias = gradients(weight, bias, x, y)
    parts = [slice(0, 3), slice(3, 6), slice(6, 7)]
    np.testing.assert_allclose(
        found["1.weight"], np.mean([of_weight[p].mean(0) ** 2 for p in parts], axis=0), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_allclose(
        found["1.bias"], np.mean([of_bias[p].mean(0) ** 2 for p in parts], axis=0), rtol=1e-4, atol=1e-7
    )


def test_sample_importance_equals_the_closed_form(problem):
    samples, x, y = problem
    model, weight, bias = linear_model()
    found = sample_importance(model, samples.batches(None, 3), chunk=2)
    of_weight, of_bias = gradients(weight, bias, x, y)
    np.testing.assert_allclose(found["1.weight"], (of_weight**2).mean(0), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found["1.bias"], (of_bias**2).mean(0), rtol=1e-4, atol=1e-7)


def test_both_importances_agree_on_batches_of_one(tiny_scenario):
    model = tiny_scenario.build().eval()
    some = torch.arange(5)
    by_batch = batch_importance(model, tiny_scenario.train.batches(some, 1))
    by_sample = sample_importance(model, tiny_scenario.train.batches(some, 5))
    for name, value in by_batch.items():
        torch.testing.assert_close(by_sample[name].float(), value, rtol=1e-3, atol=1e-7)


def test_importance_changes_no_running_statistics(tiny_scenario):
    model = tiny_scenario.build()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch_importance(model, tiny_scenario.train.batches(None, 64))
    sample_importance(model, tiny_scenario.train.batches(torch.arange(4)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("fisher", ["batch", "per-sample"])
@pytest.mark.parametrize(("reference_set", "reference"), [("retained", [0, 2, 3, 5]), ("train", [0, 1, 2, 3, 4, 5, 6])])
def test_importances_of_both_sets_equal_the_closed_form(problem, precision, fisher, reference_set, reference):
    samples, x, y = problem
    model, weight, bias = linear_model()
    recipe = Sgd(Sgd.Options(crop_padding=0, flip=False)).on("cpu", precision)
    task = cutk.Task(model.eval(), samples, torch.tensor([1, 4, 6]), recipe)
    found = SSD(SSD.Options(fisher=fisher, reference_set=reference_set)).prepare(task)
    of_weight, _ = gradients(weight, bias, x, y)
    for importance, part in ((found.forget, [1, 4, 6]), (found.retain, reference)):
        by_hand = (of_weight[part] ** 2).mean(0) if fisher == "per-sample" else of_weight[part].mean(0) ** 2
        np.testing.assert_allclose(importance["1.weight"], by_hand, rtol=1e-4, atol=1e-8)


def test_importances_are_those_of_double_precision_where_the_recipe_rounds(tiny_scenario):
    model = tiny_scenario.build().eval()
    tiny_scenario.recipe.precision = "bf16"
    task = tiny_scenario.task(model, 1.0)
    found = SSD().prepare(task).forget
    (batch,) = task.train.batches(task.identified)
    exact = copy.deepcopy(model).double()
    nn.functional.cross_entropy(exact(batch.x.double()), batch.y).backward()
    for name, parameter in exact.named_parameters():
        # What bf16 would give is off by some per cent.
        torch.testing.assert_close(found[name].double(), parameter.grad**2, rtol=1e-3, atol=1e-10)


@pytest.mark.parametrize("fisher", ["batch", "per-sample"])
@pytest.mark.parametrize("reference_set", ["retained", "train"])
def test_the_estimate_is_what_is_drawn(tiny_scenario, reference_set, fisher):
    options = SSD.Options(reference_set=reference_set, fisher=fisher)
    task = tiny_scenario.task(tiny_scenario.build(), 0.5)
    SSD(options).prepare(task)
    sizes = cutk.Sizes(train=len(task.train), identified=len(task.identified), batch_size=32, steps=20)
    assert SSD.passes(options, sizes) == (pytest.approx(task.train.drawn / len(task.train)), 0.0)


def test_the_shared_state_is_what_a_single_run_computes(tiny_scenario):
    original = tiny_scenario.train_original(cutk.Log())
    ssd = SSD(SSD.Options(selection_weight=1.0, dampening=1.0))

    def task():
        return tiny_scenario.task(original, 0.5)

    shared = ssd.unlearn(task(), ssd.prepare(task()))
    alone = ssd.unlearn(task())
    for one, other in zip(shared.state_dict().values(), alone.state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_what_is_left_of_a_mean_is_the_mean_over_the_rest():
    x = torch.rand(50, 3, dtype=torch.float64) ** 8
    whole, part = {"w": x.mean(0)}, {"w": x[:7].mean(0)}
    torch.testing.assert_close(rest(whole, 50, part, 7)["w"], x[7:].mean(0), rtol=1e-12, atol=0.0)
    # Rounding gives no negative importance.
    assert (rest({"w": torch.zeros(1)}, 50, {"w": torch.full((1,), 1e-30)}, 7)["w"] == 0).all()


def test_a_survey_saves_the_pass_over_the_rest(tiny_scenario):
    original, ssd = tiny_scenario.train_original(cutk.Log()), SSD(SSD.Options(fisher="per-sample"))
    task = tiny_scenario.task(original, 0.5)
    alone = ssd.prepare(task)
    knowing = tiny_scenario.task(original, 0.5)
    knowing.surveyed = ssd.survey(tiny_scenario.task(original, 0.5).knowing_nothing())
    surveyed = ssd.prepare(knowing)
    assert (task.train.drawn, knowing.train.drawn) == (len(task.train) + len(task.identified), len(task.identified))
    for one, other in zip(alone, surveyed, strict=True):
        assert all(torch.equal(value, other[name]) for name, value in one.items())


def test_without_a_rest_there_is_nothing_to_compare(tiny_scenario):
    task = tiny_scenario.task(tiny_scenario.build(), 1.0)
    task = task.knowing(torch.arange(len(task.train)))
    with pytest.raises(cutk.CellError, match="there is no rest"):
        SSD().prepare(task)
    # All of the training set is there to compare with, and no parameter matters more for it than for itself.
    found = SSD(SSD.Options(reference_set="train", fisher="per-sample")).prepare(task)
    for name, importance in found.forget.items():
        torch.testing.assert_close(importance, found.retain[name])


def test_importance_of_softened_logits_in_closed_form():
    model, weight, bias = linear_model()
    x = np.random.default_rng(0).normal(size=(6, 4))
    y = np.array([0, 1, 2, 0, 1, 2])
    # The gradient of CE(z / T) by θ is that of a classifier with θ / T, divided by T once more.
    expected = (gradients(weight / 5, bias / 5, x, y)[0] / 5) ** 2
    batch = cutk.Batch(torch.tensor(x).float(), torch.tensor(y), torch.arange(6))
    for importance in (sample_importance, lambda m, b: batch_importance(m, singles(b[0]))):
        with softened(model, 5):
            found = importance(model, [batch])
        np.testing.assert_allclose(found["1.weight"], expected.mean(0), rtol=1e-4)
    assert not model._forward_hooks


def singles(batch):
    return [cutk.Batch(*(value[i : i + 1] for value in batch)) for i in range(len(batch.y))]


def test_margins_and_the_temperature_that_suits_them():
    class Fixed(nn.Module):
        def forward(self, x):
            return x

    logits = torch.tensor([[50.0, 2.0, -5.0], [0.0, 30.0, 14.0]])
    margins = margins_of(Fixed(), [cutk.Batch(logits, torch.tensor([0, 1]), torch.arange(2))])
    assert margins.tolist() == [48.0, 16.0]
    assert temperature_for(margins) == 4.0
    assert temperature_for(torch.tensor([3.0, -1.0])) == 1.0
