"""Losses of labels that may be wrong, against hand computed cases."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from scipy.special import logsumexp
from torch import nn

import cutk
from cutk_builtin.doubt import (
    agreed,
    complementary_loss,
    likeliest,
    otherwise,
    teaching,
    unchanging,
    weighted,
)
from cutk_builtin.recipes.fast import Fast


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_complement_by_hand():
    logits = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    weights = np.array([[0.0, 1.0, 0.25], [1.0, 1.0, 0.0]])
    expected = [logsumexp(row) - np.log((np.exp(row) * w).sum()) for row, w in zip(logits, weights, strict=True)]
    assert complementary_loss(torch.tensor(logits), torch.tensor(weights)).tolist() == pytest.approx(expected)


def test_what_a_label_is_otherwise_by_hand():
    logits = np.array([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]])
    weights = np.array([[0.0, 1.0, 0.25], [1.0, 0.0, 0.0]])
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    others = (p * weights).sum(1)
    expected = others / (others + p[[0, 1], [0, 1]])
    found = otherwise(torch.tensor(logits), torch.tensor([0, 1]), torch.tensor(weights))
    assert found.tolist() == pytest.approx(expected.tolist())


def test_weighted_logits_weigh_the_gradients_of_any_mean():
    logits = torch.randn(4, 3, generator=seeded(), requires_grad=True)
    batch = cutk.Batch(torch.zeros(4, 1), torch.tensor([0, 1, 2, 1]), torch.arange(4))
    weight = torch.tensor([1.0, 0.0, 0.25, 0.5])
    recipe = Fast(Fast.Options(smoothing=0.3))
    (found,) = torch.autograd.grad(recipe.loss(weighted(logits, weight), batch), logits)
    each = nn.functional.cross_entropy(logits, batch.y, label_smoothing=0.3, reduction="none")
    (expected,) = torch.autograd.grad((weight * each).mean(), logits)
    assert torch.allclose(found, expected)


def test_two_guesses_agree_on_the_geometric_mean_of_their_odds():
    one, other = torch.rand(50, generator=seeded(1)), torch.rand(50, generator=seeded(2))
    found = agreed(one, other)
    expected = torch.sqrt((one / (1 - one)).double() * (other / (1 - other)).double())
    assert torch.allclose((found / (1 - found)).double(), expected, rtol=1e-4)
    assert torch.allclose(agreed(one, one), one, atol=1e-6)
    certain = agreed(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0]))
    assert certain.tolist() == pytest.approx([0, 1, 0.5], abs=1e-5)


def test_suspects_that_are_taught_their_class_learn_it_as_others_learn_theirs(monkeypatch, two_classes):
    task, _ = two_classes
    each = partial(nn.functional.cross_entropy, label_smoothing=0.3)
    monkeypatch.setattr(type(task.recipe), "loss", lambda _, logits, batch: each(logits, batch.y))
    labels, q, w = task.train.labels, torch.linspace(0, 1, 400), torch.tensor([[0.0, 1], [1, 0]])
    logits = torch.randn(400, 2, generator=seeded())
    loss = teaching(task, unchanging(q), w)
    batch = cutk.Batch(torch.zeros(400, 1), labels, torch.arange(400))
    learned = logits.clone().requires_grad_()
    loss(learned, batch).backward()
    wanted = logits.clone().requires_grad_()
    given, other = (each(wanted, y, reduction="none") for y in (labels, 1 - labels))
    ((1 - q) * given + q * other).mean().backward()
    assert torch.allclose(learned.grad, wanted.grad, atol=1e-7)


def test_only_suspects_are_taught_another_class_than_their_label(task, monkeypatch):
    labels, seen = task.train.labels, []
    monkeypatch.setattr(type(task.recipe), "loss", lambda _, logits, batch: (seen.append(batch.y), logits.sum())[1])
    w, bad = 1 - torch.eye(task.num_classes), labels == 1
    w[1] = torch.eye(task.num_classes)[2]  # others are open, and nobody of theirs is a suspect
    q = bad * 0.4
    loss = teaching(task, unchanging(q), w)
    logits = torch.randn(len(labels), task.num_classes, generator=seeded())
    logits[:, 1] += 40  # however sure the model is of what is wrong
    loss(logits, cutk.Batch(torch.zeros(len(labels), 1), labels, torch.arange(len(labels))))
    assert torch.equal(seen[0], labels)
    assert torch.equal(seen[1], torch.where(bad, 2, labels))


def test_the_likeliest_class_is_one_that_the_transition_weighs():
    logits = torch.randn(50, 4, generator=seeded())
    weights = torch.rand(50, 4, generator=seeded(1)) * (torch.arange(4) != 2)
    assert torch.equal(likeliest(logits, weights), (logits.softmax(1) * weights).argmax(1))
    assert torch.equal(likeliest(logits, torch.eye(4)[torch.full((50,), 3)]), torch.full((50,), 3))
    assert likeliest(torch.tensor([[40.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.5, 1.0]])).tolist() == [1]
