from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk_builtin.dampening import Importances
from cutk_builtin.recipes.sgd import Sgd
from cutk_builtin.unlearners.potion import (
    Potion,
    Prepared,
    finite_ratios,
    label_free_importance,
    neutralise,
    percentile,
    percentile_of,
)


def test_importance_is_a_loop_of_single_gradients(tiny_scenario):
    model = tiny_scenario.build()
    found = label_free_importance(model, tiny_scenario.train.batches(torch.arange(11), 4))
    model = copy.deepcopy(model).eval()
    sums = {name: torch.zeros_like(value) for name, value in model.named_parameters()}
    for batch in tiny_scenario.train.batches(torch.arange(11), 4):
        model.zero_grad()
        # The mean of the gradients of single samples is the gradient of the mean.
        for x in batch.x:
            (model(x[None]).square().sum().sqrt() / len(batch.x)).backward()
        for name, value in model.named_parameters():
            sums[name] += value.grad.abs() / 3
    for name, value in sums.items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-7)


def test_importance_asks_for_no_label(tiny_scenario):
    model, batches = tiny_scenario.build(), list(tiny_scenario.train.batches(torch.arange(9), 9))
    others = [batch._replace(y=(batch.y + 1) % tiny_scenario.train.num_classes) for batch in batches]
    one, other = (label_free_importance(model, each) for each in (batches, others))
    assert all(torch.equal(value, other[name]) for name, value in one.items())


@pytest.mark.parametrize("percent", [0, 12.5, 50, 99.3, 99.999, 100])
@pytest.mark.parametrize("count", [1, 2, 7, 1000])
def test_percentiles_are_numpys(percent, count):
    values = torch.rand(count, generator=torch.Generator().manual_seed(count)).sort().values
    assert percentile(values, percent) == pytest.approx(np.percentile(values.double().numpy(), percent), rel=1e-6)


def test_the_percentile_follows_the_size():
    assert percentile_of(0.01) == 100 - math.log(2)
    assert percentile_of(1e60) == 0


def test_only_finite_ratios_count():
    forget = {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor([[3.0], [0.0], [0.0]])}
    retain = {"a": torch.tensor([2.0, 0.0]), "b": torch.tensor([[1.0], [0.0], [4.0]])}
    assert finite_ratios(Importances(forget, retain)).tolist() == [0.0, 0.5, 3.0]


class Two(nn.Module):
    """Says class 1 where a · x₀ + b · x₁ > 0; a is what the poison uses, and b what everything else does."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([8.0, 1.0]))

    def forward(self, x):
        score = (x * self.w).sum(1)
        return torch.stack([-score, score], 1)


@pytest.fixture
def two():
    """S_f: two samples of (1, −0.5), labelled 1, which a makes 1 and b would make 0; four others know b alone."""
    x = torch.tensor([[1.0, -0.5]] * 2 + [[0.25, 1.0], [0.25, 2.0], [0.0, -1.0], [-0.25, -1.0]])
    labels = torch.tensor([1, 1, 1, 1, 0, 0])
    train = ResidentTrainSet(cutk.Samples(x, labels, ("a", "b")), cutk.Normalisation((0.0,) * 2, (1.0,) * 2))
    recipe = Sgd(Sgd.Options(batch_size=6, crop_padding=0, flip=False)).on("cpu")
    return cutk.Task(Two(), train, torch.arange(2), recipe)


def test_the_update_by_hand(two):
    # ‖f(x)‖₂ = √2 · |w · x|, with the gradient √2 · sign(w · x) · x: on S_f √2 · (1, −0.5), on the four others, with
    # w · x of 3, 4, −1 and −3, √2 · (0.75, 5) / 4. Ratios: 16/3 and 0.4.
    prepared = Potion().prepare(two)
    torch.testing.assert_close(prepared.importances.forget["w"], math.sqrt(2) * torch.tensor([1.0, 0.5]))
    torch.testing.assert_close(prepared.importances.retain["w"], math.sqrt(2) * torch.tensor([0.1875, 1.25]))
    torch.testing.assert_close(prepared.ratios, torch.tensor([0.4, 16 / 3]))
    # Any percentile below the hundredth selects a alone: 8 · 0.1875 = 1.5, and S_f is still labelled 1.
    model = Potion().unlearn(two, prepared)
    torch.testing.assert_close(model.w.detach(), torch.tensor([1.5, 1.0]))
    # It can't be shrunk further, which the search notices when the percentile is that of a ratio below 1.
    assert two.log.scalars["dampened_parameters"] == [1]
    last = percentile_of(2 / 6 / 25 * 1.1 ** (two.log.scalars["tries"][0] - 1))
    assert two.log.scalars["percentile"] == [pytest.approx(last)]


def test_the_search_ends_where_s_f_has_lost_its_labels(two):
    two.original.w.data[0] = 2.0
    prepared = Potion().prepare(two)
    model = Potion().unlearn(two, prepared)
    # 2 · 0.1875 − 0.5 < 0.
    assert float(model(torch.tensor([[1.0, -0.5]])).argmax()) == 0
    torch.testing.assert_close(model.w.detach(), torch.tensor([0.375, 1.0]))
    assert two.log.scalars["tries"] == [1]


def test_each_try_begins_with_the_original_weights():
    layer = nn.Linear(50, 1, bias=False)
    original = layer.weight.detach().clone()
    ratios = torch.linspace(0.5, 20, 50)
    prepared = Prepared(Importances({"weight": ratios[None]}, {"weight": torch.ones(1, 50)}), ratios)
    seen = []

    def healed():
        seen.append(layer.weight.detach().clone())
        return len(seen) == 3

    found = neutralise(layer, prepared, healed, size=0.01, step=5.0, tries=500)
    expected = {}
    for tried in range(found.tries):
        threshold = np.percentile(ratios.double().numpy(), 100 - np.log(1 + 100 * 0.01 * 5.0**tried))
        factor = torch.where(ratios > threshold, 1 / ratios, 1.0)
        expected.setdefault(int((factor < 1).sum()), original * factor)
    # Asked after each try that changed other weights.
    assert len(expected) == 3 < found.tries
    assert found.dampened_parameters == max(expected)
    for weight, by_hand in zip(seen, expected.values(), strict=True):
        torch.testing.assert_close(weight, by_hand)


def test_the_tries_are_counted(two):
    found = neutralise(two.original, Potion().prepare(two), lambda: False, size=1e-9, step=1.0001, tries=7)
    assert found.tries == 7


def test_what_is_forgotten_already_is_left_alone(two):
    two.original.w.data[0] = 0.0
    before = two.original.w.detach().clone()
    model = Potion().unlearn(two)
    assert torch.equal(model.w, before)
    assert two.log.scalars["tries"] == [0]


def test_the_shared_state_is_what_a_single_run_computes(tiny_scenario):
    original = tiny_scenario.train_original(cutk.Log())
    method = Potion()
    task, other = (tiny_scenario.task(original, 0.5) for _ in range(2))
    state = method.prepare(tiny_scenario.task(original, 0.5))
    kept = copy.deepcopy(state)
    shared, alone = method.unlearn(task, state), method.unlearn(other)
    assert all(torch.equal(a, b) for a, b in zip(shared.parameters(), alone.parameters(), strict=True))
    assert torch.equal(state.ratios, kept.ratios)
    assert all(torch.equal(value, kept.importances.forget[n]) for n, value in state.importances.forget.items())
    assert task.log.scalars == other.log.scalars


def test_the_estimate_is_what_is_drawn(tiny_scenario):
    task = tiny_scenario.task(tiny_scenario.build(), 0.5)
    Potion().prepare(task)
    sizes = cutk.Sizes(train=len(task.train), identified=len(task.identified), batch_size=32, steps=20)
    before, after = Potion.passes(Potion.Options(), sizes)
    assert before == task.train.drawn / len(task.train)
    # 1.1^70 is about 25 · 32; each try, and the original, is a look at S_f.
    assert after == pytest.approx((1 + 70) / 3 * len(task.identified) / len(task.train))


def test_without_a_rest_there_is_nothing_to_compare(two):
    with pytest.raises(cutk.CellError, match="there is no rest"):
        Potion().prepare(two.knowing(torch.arange(6)))


def test_a_network_that_nothing_moves_is_refused(two):
    # Only S_f has a gradient: no ratio is finite.
    x = torch.zeros(6, 2)
    x[:2] = 1.0
    train = ResidentTrainSet(cutk.Samples(x, two.train.labels, ("a", "b")), cutk.Normalisation((0.0,) * 2, (1.0,) * 2))
    with pytest.raises(cutk.CellError, match="these are all zero"):
        Potion().prepare(cutk.Task(Two(), train, torch.arange(2), two.recipe))
