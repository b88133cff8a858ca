"""Detectors: each one's scores against NumPy or by hand, and all of them on samples that are easy to tell apart."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

import cutk
from cutk.data.batches import ResidentTrainSet
from cutk.data.samples import Samples
from cutk_builtin.detectors.activation_clustering import ActivationClustering, principal, two_means
from cutk_builtin.detectors.gradient_similarity import GradientSimilarity, similarity
from cutk_builtin.detectors.seeded_knn import SeededKnn, nearness
from cutk_builtin.detectors.seeded_probe import SeededProbe
from cutk_builtin.detectors.spectral_signature import SpectralSignature, by_rank, outlyingness
from cutk_builtin.ranking import area_under_roc
from cutk_builtin.recipes.sgd import Sgd
from cutk_builtin.seeded import by_similarity, split

DETECTORS = [SeededProbe, SeededKnn, GradientSimilarity, SpectralSignature, ActivationClustering]


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def cosines(a, b):
    a, b = (np.asarray(each, dtype=float) for each in (a, b))
    return a @ b.T / np.linalg.norm(a, axis=1)[:, None] / np.linalg.norm(b, axis=1)


def test_nearness_is_the_mean_of_the_largest_cosines():
    features, seeds = random(6, 4), random(5, 4, seed=1)
    expected = np.sort(cosines(features, seeds), axis=1)[:, -2:].mean(1)
    assert nearness(features, seeds, 2).numpy() == pytest.approx(expected, abs=1e-6)
    assert nearness(features, seeds, 9).numpy() == pytest.approx(cosines(features, seeds).mean(1), abs=1e-6)


def test_a_seed_is_compared_with_the_other_seeds():
    seeds = random(4, 3)
    every = cosines(seeds, seeds)
    expected = [np.delete(row, i).max() for i, row in enumerate(every)]
    assert nearness(seeds, seeds, 1, own=True).numpy() == pytest.approx(expected, abs=1e-6)
    assert nearness(seeds[:1], seeds[:1], 3, own=True).tolist() == [1.0]


def test_similarity_is_that_of_the_gradients_themselves():
    layer = nn.Linear(3, 4, bias=False)
    features, labels = random(5, 3), torch.tensor([0, 1, 2, 3, 0])
    gradients = []
    for x, y in zip(features, labels, strict=True):
        loss = nn.functional.cross_entropy(layer(x[None]), y[None])
        (gradient,) = torch.autograd.grad(loss, layer.weight)
        gradients.append(gradient.flatten().numpy())
    errors = layer(features).softmax(1).detach() - nn.functional.one_hot(labels, 4)
    found = similarity(features, errors, features[:2], errors[:2])
    assert found.numpy() == pytest.approx(cosines(gradients, gradients[:2]).mean(1), abs=1e-5)
    own = similarity(features[:2], errors[:2], features[:2], errors[:2], own=True)
    assert own.numpy() == pytest.approx([cosines(gradients, gradients)[0, 1]] * 2, abs=1e-5)


def test_the_spectral_signature_is_the_projection_on_the_main_direction():
    x = random(30, 5).double().numpy() * [5, 1, 1, 1, 1]
    values, vectors = np.linalg.eigh(np.cov(x.T))
    expected = ((x - x.mean(0)) @ vectors[:, values.argmax()]) ** 2
    assert outlyingness(torch.tensor(x, dtype=torch.float32)).numpy() == pytest.approx(expected, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("part", [0.0, 0.15, 0.5, 1.0])
def test_ranks_are_above_one_half_for_the_largest_part(part):
    scores = random(40)
    found = by_rank(scores, part)
    assert int((found > 0.5).sum()) == round(40 * part)
    assert ((found >= 0) & (found <= 1)).all()
    assert torch.equal(found.argsort(), scores.argsort())


def test_equal_scores_share_a_rank():
    assert by_rank(torch.zeros(20), 0.15).unique().numel() == 1
    assert not (by_rank(torch.zeros(20), 0.15) > 0.5).any()
    found = by_rank(torch.tensor([0.0, 1.0, 1.0, 1.0, 2.0]), 0.2)
    assert found.tolist() == pytest.approx([0, 1 / 3, 1 / 3, 1 / 3, 1])


def test_principal_components_keep_what_varies_most():
    x = random(20, 4).double().numpy() * [4, 3, 0.1, 0.1]
    found = principal(torch.tensor(x), 2).numpy()
    values = np.sort(np.linalg.eigvalsh(np.cov(x.T)))[::-1]
    assert found.var(0, ddof=1) == pytest.approx(values[:2])
    assert np.cov(found.T)[0, 1] == pytest.approx(0, abs=1e-9)


def test_two_means_by_hand():
    points = torch.tensor([[0.0], [1.0], [2.0], [10.0], [11.0]], dtype=torch.double)
    distances, nearer = two_means(points)
    assert nearer.tolist() == [0, 0, 0, 1, 1]
    assert distances[0].tolist() == pytest.approx([1.0, 10.5])


@pytest.mark.parametrize("zeros", [40, 50, 60])
def test_two_means_find_two_places_whatever_lies_at_either(zeros):
    points = torch.tensor([[0.0]] * zeros + [[1.0]] * (100 - zeros), dtype=torch.double)
    distances, nearer = two_means(points)
    assert nearer.tolist() == [0] * zeros + [1] * (100 - zeros)
    assert distances[0].tolist() == [0, 1]


class Halved(nn.Module):
    """Half of what it returns is no number."""

    def forward(self, x):
        return torch.where(x < 0.5, x, math.nan)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_features_that_are_no_numbers_break_no_judgement(detector, images_of):
    train = ResidentTrainSet(images_of(count=30, size=2), cutk.Normalisation((0.0,), (1.0,)))

    def build():
        return nn.Sequential(nn.Flatten(), Halved(), nn.Linear(4, train.num_classes))

    task = cutk.Task(build(), train, torch.tensor([1]), Sgd(Sgd.Options(steps=1)).on("cpu"), build=build)
    found = detector().detect(task)
    assert ((found >= 0) & (found <= 1)).all()


def test_scores_become_probabilities_with_one_alpha():
    rng = np.random.default_rng(0)
    labels = torch.tensor([0] * 220)
    scores = np.r_[rng.normal(3, 0.5, 40), rng.normal(0, 0.5, 180)]
    bad, unknown = split(labels, torch.arange(10))[0]
    found = by_similarity(
        {0: (torch.tensor(scores[:10]), torch.tensor(scores[10:]), unknown)}, labels, torch.arange(10)
    )
    assert bad.tolist() == list(range(10))
    assert found.alpha == pytest.approx(10 / 40, rel=0.1)
    assert (found.probability[:40] > 0.5).all()
    assert not (found.probability[40:] > 0.5).any()


@pytest.fixture
def task():
    """Of two labels the first has forty samples that lie elsewhere, and ten of these are known."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(400, 6, generator=generator)
    labels = torch.arange(400) // 200
    x[:200, 0] += 4
    x[:40, 1] += 8
    x[:40, 0] -= 6
    train = ResidentTrainSet(Samples(x, labels, ("a", "b")), cutk.Normalisation((0.0,) * 6, (1.0,) * 6))
    recipe = Sgd(Sgd.Options(steps=60, batch_size=50, lr=0.1)).on("cpu")
    torch.manual_seed(0)
    model = recipe.train(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), train)
    return cutk.Task(model, train, torch.arange(10), recipe)


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_what_is_easy_to_tell_apart_is_found(detector, task):
    found = detector().detect(task)
    assert found.dtype == torch.float32
    assert (found[:10] == 1).all()
    suspects = found[10:200] > 0.5
    if detector in (SeededProbe, SeededKnn, ActivationClustering):
        assert float(suspects[:30].double().mean()) > 0.9
        assert float(suspects[30:].double().mean()) < 0.1
    if detector not in (SpectralSignature, ActivationClustering):
        assert (found[200:] == 0).all()


@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_tokens_are_told_apart_as_well(detector, poisoned_sentences):
    task, bad, *_ = poisoned_sentences
    found = detector().detect(task.private(seed=0))
    assert ((found >= 0) & (found <= 1)).all()
    others = torch.ones(len(found), dtype=torch.bool).index_fill(0, task.identified, False)
    positive = torch.zeros(len(found), dtype=torch.bool).index_fill(0, bad, True)
    labelled = others & (task.train.labels == 0)
    least = 0.95 if detector in (SeededProbe, SeededKnn) else 0.6
    assert area_under_roc(found[labelled], positive[labelled]) > least


@pytest.mark.parametrize("known", [[0], [0, 1], [0, 250], list(range(200)), list(range(400))])
@pytest.mark.parametrize("detector", DETECTORS, ids=lambda detector: detector.name)
def test_it_is_a_probability_whatever_is_known(detector, known, task):
    found = detector().detect(task.knowing(torch.tensor(known)))
    assert ((found >= 0) & (found <= 1)).all()
