"""Confident learning: beside cleanlab's own functions, and its probe beside SciPy's minimum."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from scipy import optimize
from scipy.special import logsumexp, softmax
from torch import nn

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk_builtin.cross_fitting import FOLDS, class_probabilities, folds
from cutk_builtin.detectors.confident_learning import ConfidentLearning, graded
from cutk_builtin.recipes.sgd import Sgd

cleanlab = pytest.importorskip("cleanlab")
BAD = torch.arange(24)


@pytest.fixture(scope="module")
def blobs():
    """Three classes of eighty, of which eight each are labelled as the next."""
    generator = torch.Generator().manual_seed(0)
    true = torch.arange(240) % 3
    x = torch.randn(240, 5, generator=generator)
    x[torch.arange(240), true] += 5
    labels = true.clone()
    labels[BAD] = (labels[BAD] + 1) % 3
    return cutk.Samples(x, labels, ("a", "b", "c"))


@pytest.fixture
def task(blobs):
    train = ResidentTrainSet(blobs, cutk.Normalisation((0.0,) * 5, (1.0,) * 5))
    recipe = Sgd(Sgd.Options(steps=60, batch_size=60, lr=0.1)).on("cpu")
    torch.manual_seed(0)
    model = recipe.train(nn.Linear(5, 3), train)
    return cutk.Task(model, train, torch.tensor([0, 5]), recipe)


def test_the_probe_minimises_what_it_says(blobs):
    x, y = blobs.x.double().numpy(), blobs.labels.numpy()
    found = class_probabilities(blobs.x, blobs.labels, 3, torch.Generator().manual_seed(4), penalty=2.0).numpy()
    fold = folds(blobs.labels, torch.Generator().manual_seed(4)).numpy()

    def objective(parameters, x, y):
        w, b = parameters[:15].reshape(5, 3), parameters[15:]
        scores = x @ w + b
        return (logsumexp(scores, axis=1) - scores[np.arange(len(y)), y]).sum() + np.sum(w**2)

    for one in range(FOLDS):
        best = optimize.minimize(objective, np.zeros(18), (x[fold != one], y[fold != one])).x
        by_hand = softmax(x[fold == one] @ best[:15].reshape(5, 3) + best[15:], axis=1)
        np.testing.assert_allclose(found[fold == one], by_hand, atol=2e-3)


def test_folds_are_even_in_each_class():
    labels = torch.tensor([0] * 12 + [1] * 5 + [2])
    fold = folds(labels, torch.Generator())
    assert [torch.bincount(fold[labels == one], minlength=FOLDS).tolist() for one in (0, 1)] == [
        [3, 3, 2, 2, 2],
        [1] * 5,
    ]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_few_samples_have_probabilities(count):
    found = class_probabilities(torch.randn(count, 3), torch.zeros(count, dtype=torch.int64), 4, torch.Generator(), 1.0)
    assert torch.allclose(found.sum(1), torch.ones(count, dtype=torch.float64))


def of_the_original(task):
    (batch,) = task.train.batches()
    return task.original(batch.x).detach().double().softmax(1).numpy()


@pytest.mark.parametrize("filter_by", ["prune_by_noise_rate", "prune_by_class", "both", "confident_learning"])
@pytest.mark.parametrize("probabilities", ["probe", "original"])
def test_suspects_are_those_that_cleanlab_finds(task, probabilities, filter_by):
    from cleanlab.filter import find_label_issues

    options = ConfidentLearning.Options(probabilities=probabilities, filter_by=filter_by)
    found = ConfidentLearning(options).detect(task).numpy()
    y = task.train.labels.numpy()
    if probabilities == "original":
        each = of_the_original(task)
    else:
        x = task.train._x
        x = (x - x.mean(0)) / x.std(0, correction=0)
        each = class_probabilities(x, task.train.labels, 3, torch.Generator().manual_seed(0), 1.0).numpy()
    issues = find_label_issues(y, each, filter_by=filter_by)
    known = task.identified.numpy()
    assert 15 < issues.sum() < 30
    assert set(np.flatnonzero(found > 0.5)) == set(np.flatnonzero(issues)) | set(known)
    assert (found[known] == 1).all()
    # Within each half in the order of cleanlab's scores: the probability of the given label.
    own = each[np.arange(len(y)), y]
    for half in (issues, ~issues):
        half[known] = False
        assert np.corrcoef(found[half], -own[half])[0, 1] == pytest.approx(1, abs=1e-6)


def test_wrong_labels_are_found(task):
    suspects = ConfidentLearning().detect(task) > 0.5
    assert float(suspects[BAD].float().mean()) > 0.8
    assert float(suspects[len(BAD) :].float().mean()) < 0.05


def test_what_cleanlab_finds_is_above_one_half_however_good_its_label():
    found = graded(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([True, False, True, False]))
    assert (found > 0.5).tolist() == [True, False, True, False]
    assert found.tolist() == [pytest.approx(0.5), 0.0, 1.0, 0.5]


@pytest.mark.parametrize("known", [[0], list(range(240))])
def test_it_is_a_probability_whatever_is_known(known, task):
    found = ConfidentLearning().detect(task.knowing(torch.tensor(known)))
    assert found.dtype == torch.float32
    assert ((found >= 0) & (found <= 1)).all()


BENCH = ("bench", "-d", "fake", "--alpha", "1", "--seeds", "1", "--device", "cpu")


@pytest.mark.parametrize(
    "asked", [("-u", "none+confident-learning"), ("-u", "none", "--detector", "confident-learning")]
)
def test_without_cleanlab_a_plan_is_refused_before_anything_runs(asked, monkeypatch, run, tmp_path):
    monkeypatch.setitem(sys.modules, "cleanlab", None)
    ran = run(*BENCH, *asked)
    assert ran.code == 2
    assert (
        ran.err == "Error: The detector 'confident-learning' needs cleanlab. Install it: pip install 'cutk[cleanlab]'\n"
    )
    assert list(tmp_path.iterdir()) == []
