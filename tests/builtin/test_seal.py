"""Seal and the seeded probe: each part against hand computed cases or SciPy, the whole on tiny problems."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy import optimize, stats
from scipy.special import logsumexp
from torch import nn

import cutk
import cutk_builtin.seeded as seeded_module
import cutk_builtin.unlearners.seal as seal_module
from cutk.data.batches import ResidentTrainSet
from cutk_builtin.densities import Normal, at_most, log_odds, mixed, normal_of
from cutk_builtin.doubt import (
    Following,
    Suspicion,
    agreed,
    complementary_loss,
    correcting,
    latest,
    likeliest,
    otherwise,
    teaching,
    unchanging,
    weighted,
)
from cutk_builtin.looking import Outputs, alternatives, concerned, outputs, pooled, views
from cutk_builtin.ranking import average_precision
from cutk_builtin.recipes.fast import Fast
from cutk_builtin.recipes.sgd import Sgd
from cutk_builtin.seeded import (
    FOLDS,
    Posterior,
    common_alpha,
    posterior,
    probe,
    shifted,
    standardised,
    tied,
    transition,
)
from cutk_builtin.unlearners.seal import Seal, shrunk


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_the_transition_by_hand():
    #                label 0: six of seven have 2         label 1: three of four have 0   label 2: one alone
    labels = torch.tensor([0] * 7 + [1] * 4 + [2])
    alternative = torch.tensor([2, 2, 2, 2, 2, 2, 1, 0, 0, 0, 3, 1])
    found = transition(alternative, labels, torch.ones(12), 4, threshold=0.6)
    # 6 > 0.6 · 9, so shares count; 3 < 0.6 · 6 and 1 < 0.6 · 3, so any other class will do.
    expected = [[0, 1 / 6, 1, 0], [1, 0, 1, 1], [1, 1, 0, 1], [1, 1, 1, 0]]
    assert found.numpy() == pytest.approx(np.array(expected))
    # Half as bad, half as many: 3 is no more than 0.6 · 5.5, and nothing is settled.
    assert transition(alternative, labels, torch.full((12,), 0.5), 4, threshold=0.6)[0].tolist() == [0, 1, 1, 1]


def test_the_alternative_is_the_likeliest_other_class():
    logits = torch.tensor([[3.0, 1.0, 2.0], [3.0, 1.0, 2.0]])
    assert alternatives(logits, torch.tensor([0, 1])).tolist() == [2, 0]


def test_constant_columns_become_zero_and_the_others_standard():
    features = torch.tensor([[1.0, 7.0, float("nan")], [3.0, 7.0, 0.0], [5.0, 7.0, 0.0]])
    found = standardised(features)
    assert found[:, 0].numpy() == pytest.approx(stats.zscore([1, 3, 5]), abs=1e-6)
    assert found[:, 1:].abs().max() == 0


def test_the_probe_minimises_what_it_says_on_the_other_folds():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    bad, clean = np.zeros(40), np.zeros(40)
    bad[:8], clean[8:] = 1.0, rng.uniform(size=32)
    kinds = torch.tensor([0] * 8 + [1] * 32)
    given = (torch.tensor(part, dtype=torch.float32) for part in (x, bad, clean))
    scores = probe(*given, kinds, seeded(3), penalty=0.3).numpy()
    chance, fold = seeded(3), np.zeros(40, dtype=int)
    fold[:8] = torch.randperm(8, generator=chance).numpy() % FOLDS
    fold[8:] = torch.randperm(32, generator=chance).numpy() % FOLDS
    expected = np.zeros(40)
    for each in range(FOLDS):
        others = fold != each
        p, n = bad * others / (bad * others).sum() / 2, clean * others / (clean * others).sum() / 2

        def loss(w, p=p, n=n):
            s = x @ w[:3] + w[3]
            return (p * np.logaddexp(0, -s) + n * np.logaddexp(0, s)).sum() + 0.15 * (w[:3] ** 2).sum()

        w = optimize.minimize(loss, np.zeros(4), tol=1e-12).x
        expected[~others] = (x @ w[:3] + w[3])[~others]
    assert scores == pytest.approx(stats.zscore(expected), abs=0.01)  # of float32


def test_a_single_known_sample_is_in_every_fold():
    features = torch.randn(20, 4, generator=seeded())
    features[0] = 5.0
    bad = torch.zeros(20)
    bad[0] = 1.0
    scores = probe(features, bad, 1 - bad, torch.tensor([0] + [1] * 19), seeded(), penalty=1.0)
    assert torch.isfinite(scores).all()
    assert scores[0] == scores.max()


def test_a_density_borrows_spread_where_there_is_little():
    # One score: three more at distance 1 of it. Two: squares 2 · 0.25 and three more.
    assert normal_of(torch.tensor([2.0], dtype=torch.double)) == (2.0, pytest.approx(math.sqrt(3 / 4)))
    assert normal_of(torch.tensor([1.0, 2.0], dtype=torch.double)) == (1.5, pytest.approx(math.sqrt(3.5 / 5)))
    weighted_one = normal_of(torch.tensor([0.0, 4.0]), torch.tensor([3.0, 1.0]), borrowed=0.0)
    assert weighted_one == (1.0, pytest.approx(math.sqrt(3)))


def drawn(share, count=4000):
    rng = np.random.default_rng(1)
    bad = rng.uniform(size=count) < share
    return torch.tensor(np.where(bad, rng.normal(2, 0.7, count), rng.normal(-0.5, 1, count)))


def test_the_share_of_known_densities_is_the_likeliest():
    scores = drawn(0.3)
    bad = torch.tensor(stats.norm(2, 0.7).ppf(np.linspace(0.005, 0.995, 200)))
    clean = torch.tensor(stats.norm(-0.5, 1).ppf(np.linspace(0.005, 0.995, 200)))
    found = mixed(scores, bad, clean, free=False)
    densities = [stats.norm(*normal_of(those)).pdf(scores.numpy()) for those in (bad, clean)]

    def loss(share):
        return -np.log(share * densities[0] + (1 - share) * densities[1]).sum()

    assert found.share == pytest.approx(optimize.minimize_scalar(loss, bounds=(0, 1), method="bounded").x, abs=1e-4)
    assert found.share == pytest.approx(0.3, abs=0.02)


@pytest.mark.parametrize("free", [False, True])
def test_what_the_clean_look_like_is_found_where_none_is_known(free):
    bad = torch.tensor(stats.norm(2, 0.7).ppf(np.linspace(0.05, 0.95, 10)))
    found = mixed(drawn(0.3), bad, bad[:0], free=free)
    assert found.share == pytest.approx(0.3, abs=0.05)
    assert found.clean == (pytest.approx(-0.5, abs=0.1), pytest.approx(1, abs=0.1))


def test_log_odds_are_those_of_normal_densities_and_never_fall():
    bad, clean = Normal(2.0, 2.0), Normal(0.0, 1.0)
    scores = torch.linspace(-8, 8, 200, dtype=torch.double)
    for one, other in ((bad, clean), (Normal(2.0, 0.5), clean)):
        found = log_odds(scores, one, other).numpy()
        exact = stats.norm(*one).logpdf(scores) - stats.norm(*other).logpdf(scores)
        between = (scores >= other.mean) & (scores <= one.mean)
        assert found[between] == pytest.approx(exact[between])
        assert (np.diff(found) >= -1e-12).all()


def test_shifted_odds_have_the_mean_that_is_asked_for():
    odds = torch.tensor([-30.0, -1.0, 0.5, 4.0], dtype=torch.double)
    for mean in (1e-4, 0.3, 0.6):
        found = shifted(odds, mean)
        assert float(found.mean()) == pytest.approx(mean)
        moved = torch.logit(found[1:3]) - odds[1:3]
        assert float(moved[0]) == pytest.approx(float(moved[1]))


def test_one_alpha_explains_all_labels_by_hand():
    # 10 and 5 are known; 0.5 · 60 and 0.1 · 50 of the others are thought to be bad: 15 of 50.
    assert common_alpha({3: 10, 8: 5}, {3: 0.5, 8: 0.1}, {3: 60, 8: 50}) == pytest.approx(15 / 50)


def test_a_label_all_of_which_is_known_counts_for_alpha():
    # All 10 of label 7 are known, so that 12 are of 12 + 0.2 · 40.
    odds = torch.zeros(40, dtype=torch.double)
    alpha, priors, _ = tied({3: (0.2, odds)}, {3: 2, 7: 10})
    assert alpha == pytest.approx(12 / 20)
    assert priors.keys() == {3}
    features, labels, identified = clusters(known=10)
    without = posterior(features, labels, identified, torch.full((10,), 9), seeded(), refinements=0)
    more, whole = torch.full((5,), 6), torch.arange(len(labels), len(labels) + 5)
    features, labels = torch.cat([features, features[:5]]), torch.cat([labels, more])
    known = torch.cat([identified, whole])
    found = posterior(features, labels, known, torch.full((15,), 9), seeded(), refinements=0)
    assert found.alpha == pytest.approx(15 / (15 + 10 * (1 / without.alpha - 1)))


def test_labels_parts_of_what_is_bad_are_a_dirichlet_posteriors_mean():
    # Labels themselves say that 2 + 30 and 8 + 5 of 45 are bad, which weighs as 20 known ones; 2 and 8 are known.
    odds = {3: torch.zeros(60, dtype=torch.double), 8: torch.zeros(50, dtype=torch.double)}
    alpha, priors, suspicion = tied({3: (0.5, odds[3]), 8: (0.1, odds[8])}, {3: 2, 8: 8})
    assert alpha == pytest.approx(10 / 45)
    parts = stats.dirichlet([2 + 20 * 32 / 45, 8 + 20 * 13 / 45]).mean()
    assert priors == {
        3: pytest.approx((45 * parts[0] - 2) / 60),
        8: pytest.approx((45 * parts[1] - 8) / 50),
    }
    assert {label: float(q.mean()) for label, q in suspicion.items()} == pytest.approx(priors, abs=1e-5)


def test_of_a_single_label_and_of_many_known_samples_one_alpha_says_all():
    odds = torch.zeros(100, dtype=torch.double)
    assert tied({3: (0.3, odds)}, {3: 4})[1][3] == pytest.approx(0.3)
    alpha, priors, _ = tied({3: (0.6, odds), 8: (0.2, odds)}, {3: 40_000, 8: 40_000})
    assert priors[3] == pytest.approx(40_000 * (1 / alpha - 1) / 100, rel=1e-3)


def test_which_labels_happen_to_be_known_matters_less_where_few_are():
    true, others = 0.45, 150
    known = np.random.default_rng(0).hypergeometric(67, 67, 13, size=200)
    odds = torch.zeros(others, dtype=torch.double)
    errors = {"taken at their word": [], "with chance": []}
    for first in (n for n in known.tolist() if 0 < n < 13):
        found, counts = {3: (true, odds), 8: (true, odds)}, {3: first, 8: 13 - first}
        alpha, priors, _ = tied(found, counts)
        errors["with chance"] += [abs(priors[label] - true) for label in priors]
        errors["taken at their word"] += [abs(n * (1 / alpha - 1) / others - true) for n in counts.values()]
    assert np.mean(errors["with chance"]) < 0.5 * np.mean(errors["taken at their word"])


def clusters(known, bad=40, clean=160, seed=0):
    """Label 0: bad samples beside clean ones; label 1: none. Which are known comes first."""
    chance = seeded(seed)
    features = torch.randn(bad + clean + 50, 6, generator=chance)
    features[:bad, 0] += 5.0
    features[:, 5] = 1.0
    labels = torch.tensor([0] * (bad + clean) + [1] * 50)
    return features, labels, torch.arange(known)


@pytest.mark.parametrize("known", [3, 5, 20])
def test_the_posterior_finds_the_others_and_how_many_they_are(known):
    features, labels, identified = clusters(known)
    found = posterior(features, labels, identified, torch.ones(known, dtype=torch.int64), seeded())
    assert (found.probability[:known] == 1).all()
    assert (found.probability[200:] == 0).all()
    assert float((found.probability[:40] > 0.5).double().mean()) > 0.9
    assert float((found.probability[40:200] > 0.5).double().mean()) < 0.05
    assert found.alpha == pytest.approx(known / 40, rel=0.25)
    assert found.priors[0] == pytest.approx((40 - known) / (200 - known), abs=0.05)


@pytest.mark.parametrize("identified", [[0], [0, 1], list(range(200)), list(range(250)), [3, 210]])
def test_the_posterior_is_a_probability_whatever_is_known(identified):
    features, labels, _ = clusters(1)
    features[:, 1] = 0.0
    identified = torch.tensor(identified)
    found = posterior(features, labels, identified, 1 - labels[identified], seeded())
    assert found.probability.isfinite().all()
    assert ((found.probability >= 0) & (found.probability <= 1)).all()
    assert 0 < found.alpha <= 1
    again = posterior(features, labels, identified, 1 - labels[identified], seeded())
    assert torch.equal(found.probability, again.probability)


def confused(by_heart="none", known=30, size=1000, seed=0):
    """Two labels, each half of the other class, that overlap; which are known are spread over both.

    What a model knows by heart shows in a feature of its own: that a sample is known to be bad, or which label it has.
    """
    chance = seeded(seed)
    classes, labels = torch.arange(2).repeat(2 * size), torch.arange(2).repeat_interleave(2 * size)
    bad = classes != labels
    features = torch.randn(4 * size, 30, generator=chance)
    features[:, 0] += 1.4 * (2 * classes - 1)
    features[:, 1:6] *= 3.0  # what differs most has nothing to do with it
    wrong = bad.nonzero().flatten()
    identified = wrong[torch.randperm(len(wrong), generator=chance)[: 2 * known]].sort().values
    if by_heart == "known":
        features[identified, 6] += 8.0
    if by_heart == "labels":
        features[:, 6] += 2.0 * (2 * labels - 1)
    return features, labels, identified, bad


@pytest.mark.parametrize("seed", range(3))
def test_known_clean_samples_that_look_like_the_rest_say_how_much_of_it_is_bad(seed, monkeypatch):
    features, labels, identified, bad = confused(seed=seed)
    given = (features, labels, identified, 1 - labels[identified])
    found = posterior(*given, seeded())
    assert found.alpha == pytest.approx(60 / 2000, rel=0.15)
    assert average_precision(found.probability, bad) > 0.85
    monkeypatch.setattr("cutk_builtin.seeded._representative", lambda *_: False)
    unsaid = posterior(*given, seeded())
    assert abs(unsaid.alpha - 60 / 2000) > 2 * abs(found.alpha - 60 / 2000)
    assert average_precision(unsaid.probability, bad) < average_precision(found.probability, bad)


def asked_of(monkeypatch, *given):
    """Return what the known clean samples are found to be, and the posterior."""
    answers = []
    representative = seeded_module._representative

    def noted(*given):
        answers.append(representative(*given))
        return answers[-1]

    with monkeypatch.context() as patched:
        patched.setattr("cutk_builtin.seeded._representative", noted)
        found = posterior(*given)
    (answer,) = answers
    return answer, found


@pytest.mark.parametrize(
    ("by_heart", "known"), [("none", 30), ("known", 30), ("labels", 30), ("known", 6), ("labels", 6)]
)
def test_known_clean_samples_that_a_probe_can_tell_from_the_rest_are_not_taken_for_it(by_heart, known, monkeypatch):
    features, labels, identified, _ = confused(by_heart, known)
    answer, found = asked_of(monkeypatch, features, labels, identified, 1 - labels[identified], seeded())
    assert answer is (by_heart == "none")
    assert found.trusted == ((0, 1) if answer else ())
    # Asking those that aren't believed changes nothing, bit for bit.
    monkeypatch.setattr("cutk_builtin.seeded._representative", lambda *_: False)
    unasked = posterior(features, labels, identified, 1 - labels[identified], seeded())
    assert torch.equal(unasked.probability, found.probability) is not answer


@pytest.mark.parametrize(
    ("far", "answer"),
    [((), True), ((0,), True), ((1,), False), ((0, 1), False)],  # 0 has few known clean samples, 1 has many
)
def test_labels_answer_together_by_how_much_each_can_tell(far, answer):
    pools = {}
    for label, few in ((0, 4), (1, 40)):
        bad, unknown, clean = torch.arange(10), torch.arange(10, 310), torch.arange(310, 310 + few)
        features = torch.randn(310 + few, 5, generator=seeded(label))
        features[310:] += 9.0 * (label in far)
        pools[label] = seeded_module._Pool(bad, unknown, clean, features)
    nobody = seeded_module._Pool(torch.arange(10), torch.arange(10, 60), torch.arange(0), torch.zeros(60, 5))
    generator = seeded()
    before = generator.get_state()
    assert seeded_module._representative({**pools, 2: nobody}, dict.fromkeys(range(3), 0.4), generator, 20.0) is answer
    assert torch.equal(generator.get_state(), before) is not answer


def test_a_label_without_known_clean_samples_is_told_by_none_of_them():
    features, labels, identified, _ = confused()
    more, wrong = torch.randn(500, 30, generator=seeded(9)), torch.arange(20)
    features, labels = torch.cat([features, more]), torch.cat([labels, torch.full((500,), 2)])
    identified = torch.cat([identified, len(labels) - 500 + wrong])
    other = torch.where(labels[identified] == 2, 3, 1 - labels[identified])
    assert posterior(features, labels, identified, other, seeded()).trusted == (0, 1)


def test_without_known_clean_samples_nothing_is_asked(monkeypatch):
    features, labels, identified = clusters(5)
    asked = []
    real = seeded_module.probe
    monkeypatch.setattr("cutk_builtin.seeded.probe", lambda *given: asked.append(given[2].sum()) or real(*given))
    posterior(features, labels, identified, torch.ones(5, dtype=torch.int64), seeded())
    assert len(asked) == 5  # a fit and four refinements of it


def test_features_that_are_all_the_same_tell_nothing_and_break_nothing():
    _, labels, identified = clusters(5)
    found = posterior(torch.ones(250, 3), labels, identified, torch.ones(5, dtype=torch.int64), seeded())
    assert found.probability.isfinite().all()


def test_what_was_found_cannot_outvote_what_is_known(monkeypatch):
    assert at_most(torch.tensor([6.0, 4.0]), 5.0).tolist() == [3.0, 2.0]
    assert at_most(torch.tensor([0.6, 0.4]), 5.0).tolist() == pytest.approx([0.6, 0.4])
    assert at_most(torch.zeros(2), 5.0).tolist() == [0.0, 0.0]

    def drawn(count, mean, seed):
        return mean + 0.4 * torch.randn(count, generator=seeded(seed), dtype=torch.float64)

    # Between the bad and the clean are samples that are neither, many more than are known.
    known, scores = drawn(40, 3.0, 0), torch.cat([drawn(2000, 0.0, 1), drawn(400, 1.6, 2), drawn(100, 3.0, 3)])
    held = mixed(scores, known, known[:0], free=True)
    monkeypatch.setattr("cutk_builtin.densities.FOUND", 1e9)
    outvoted = mixed(scores, known, known[:0], free=True)
    assert held.bad.mean == pytest.approx(3.0, abs=0.25)
    assert outvoted.bad.mean < 2.3
    assert abs(held.share - 0.04) < abs(outvoted.share - 0.04)


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


def test_what_was_learned_fades():
    old, new = nn.Linear(1, 1), nn.Linear(1, 1)
    for model, value in ((old, 10.0), (new, 0.0)):
        nn.init.constant_(model.weight, value)
    assert shrunk(old, new, 0.3).weight.item() == pytest.approx(3.0)


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


def test_two_guesses_agree_on_the_geometric_mean_of_their_odds():
    one, other = torch.rand(50, generator=seeded(1)), torch.rand(50, generator=seeded(2))
    found = agreed(one, other)
    expected = torch.sqrt((one / (1 - one)).double() * (other / (1 - other)).double())
    assert torch.allclose((found / (1 - found)).double(), expected, rtol=1e-4)
    assert torch.allclose(agreed(one, one), one, atol=1e-6)
    certain = agreed(torch.tensor([0.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 1.0]))
    assert certain.tolist() == pytest.approx([0, 1, 0.5], abs=1e-5)


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


@pytest.fixture
def task(images_of):
    images = images_of(count=12, size=2)
    recipe = Sgd(Sgd.Options(steps=4, batch_size=6, lr=0.1, crop_padding=0, flip=False)).on("cpu")
    train = ResidentTrainSet(images, cutk.Normalisation((0.0,), (1.0,)))
    build = networks()["deep"]
    torch.manual_seed(5)
    return cutk.Task(build(), train, torch.tensor([1, 4]), recipe, build=build)


@pytest.mark.parametrize("final", ["tune", "restart", "retrain"])
@pytest.mark.parametrize("identified", [[1], [1, 4], list(range(12))])
def test_seal_corrects_whatever_is_known_and_the_same_twice(task, final, identified):
    options = Seal.Options(final=final, rounds=2)
    task = task.knowing(torch.tensor(identified))
    calls = [task.private(seed=3) for _ in range(2)]
    one, two = (Seal(options).unlearn(call) for call in calls)
    for name, value in one.state_dict().items():
        assert torch.isfinite(value).all()
        assert torch.equal(value, two.state_dict()[name])
    assert len(calls[0].log.scalars["known_part"]) == 2 + (final != "tune")


@pytest.mark.parametrize("trusted", [True, False])
def test_after_a_round_the_probe_counts_beside_the_model_if_it_knew_what_is_clean(task, trusted, monkeypatch):
    task.train.labels = labels = torch.tensor([0, 1, 2] * 4)
    call = task.knowing(torch.tensor([0])).private(seed=3)
    w = torch.tensor([[0.0, 1, 0], [1, 0, 1], [1, 1, 0]])  # label 0 is settled
    probed = torch.linspace(0.1, 0.9, 12).index_fill(0, torch.tensor([0]), 1.0)
    among = labels == 0
    probed *= among
    told = Posterior(probed[among], 0.5, {0: 0.3}, (0,) if trusted else (1, 2))
    monkeypatch.setattr(seal_module, "suspected", lambda *_: told)
    logits = torch.randn(12, 3, generator=seeded())
    found = Seal()._suspicion(call, [], [Outputs(torch.zeros(4, 1), logits[among])], w)
    own = otherwise(logits, labels, w[labels])
    said = agreed(own, probed) if trusted else own
    expected = torch.where((labels == 0).index_fill(0, torch.tensor([0]), False), said, probed)
    assert torch.equal(found.q, expected)
    assert torch.equal(found.probed, probed)
    assert found.q[0] == 1
    # Before a round there is nobody to ask.
    assert torch.equal(Seal()._suspicion(call, [], [], w).q, probed)


def following(task, suspicion, weights, steps):
    once = len(task.train) // task.recipe.options.batch_size
    return Following(
        suspicion, Seal()._asked(task, weights), weights, steps=steps, of_pass=once, device=torch.device("cpu")
    )


def test_of_a_sample_that_a_batch_has_twice_the_model_is_heard_the_last_time(task):
    assert latest(torch.tensor([3])).tolist() == [0]
    assert sorted(latest(torch.tensor([5, 1, 5, 5, 0, 1])).tolist()) == [3, 4, 5]
    task.train.labels = labels = torch.tensor([0, 1, 2] * 4)
    w = torch.tensor([[0.0, 1, 0], [1, 0, 1], [1, 1, 0]])
    q = torch.full((12,), 0.25)
    asks = following(task.knowing(torch.tensor([0])), Suspicion(q, q, q > 2), w, 2)
    logits, index = torch.randn(6, 3, generator=seeded()), torch.tensor([3, 6, 3, 9, 6, 3])
    batch = cutk.Batch(torch.zeros(6, 1), labels[index], index)
    assert torch.equal(asks(logits, batch), q[index])
    own = otherwise(logits, labels[index], w[labels[index]])
    assert torch.equal(asks(logits, batch), own[torch.tensor([5, 4, 5, 3, 4, 5])])


@pytest.mark.parametrize("final", ["tune", "restart", "retrain"])
def test_progress_is_told_step_by_step_of_the_whole(task, final):
    told = []
    call = task.private(seed=3, log=cutk.Log(lambda *given: told.append(given)))
    Seal(Seal.Options(final=final, rounds=2, restart_part=0.75)).unlearn(call)
    whole = 2 * 2 + {"tune": 0, "restart": 3, "retrain": 4}[final]
    assert told == [(done + 1, whole) for done in range(whole)]


def test_with_nothing_after_the_rounds_there_is_a_round():
    with pytest.raises(ValueError, match="expected rounds of at least 1, got 0"):
        Seal.Options(final="tune", rounds=0)
    assert Seal.Options(rounds=0).final == "restart"


@pytest.mark.parametrize("trusted", [True, False])
def test_the_last_training_asks_the_model_what_suspects_are(task, trusted):
    # Label 0 is settled: its suspects are 1. Four steps on two batches a pass, so it asks before the third.
    task.train.labels = labels = torch.tensor([0, 1, 2] * 4)
    task = task.knowing(torch.tensor([0]))
    w = torch.tensor([[0.0, 1, 0], [1, 0, 1], [1, 1, 0]])
    q = torch.full((12,), 0.25)
    q[0] = 1.0
    probed, heard = torch.linspace(0.1, 0.9, 12), torch.full((12,), trusted)
    loss = correcting(task, following(task, Suspicion(q, probed, heard), w, 4), w, open_too=False)
    logits = torch.randn(12, 3, generator=seeded())

    def given(suspicion):
        batch = cutk.Batch(torch.zeros(12, 1), labels, torch.arange(12))
        complement = complementary_loss(logits, w[labels]) * torch.tensor([1.0, 0, 0])[labels]
        return task.recipe.loss(weighted(logits, 1 - suspicion), batch) + (suspicion * complement).mean()

    for indices in torch.arange(12).split(6):
        loss(logits[indices], cutk.Batch(torch.zeros(6, 1), labels[indices], indices))
    everything = cutk.Batch(torch.zeros(12, 1), labels, torch.arange(12))
    own = otherwise(logits, labels, w[labels])
    asked = torch.where(labels == 0, agreed(own, probed) if trusted else own, q)
    asked[0] = 1.0
    assert not torch.allclose(given(asked), given(q))
    assert torch.allclose(loss(logits, everything), given(asked))
    # In a round nothing is asked, and suspects whose class is open learn that it is another one.
    before = correcting(task, unchanging(q), w, open_too=True)
    whole = task.recipe.loss(weighted(logits, 1 - q), everything) + (q * complementary_loss(logits, w[labels])).mean()
    assert not torch.allclose(whole, given(q))
    assert all(torch.allclose(before(logits, everything), whole) for _ in range(4))


def two_classes():
    """A task of two classes in which nothing is bad under label 0: forty samples of class 0 are labelled 1."""
    generator = seeded()
    truth = torch.arange(400) % 2
    x = torch.randn(400, 8, generator=generator)
    x[:, 0] += (truth * 2 - 1) * 3
    bad = (truth == 0).nonzero().flatten()[:40]
    labels = truth.index_fill(0, bad, 1)
    samples = cutk.Samples(x, labels, ("a", "b"))
    train = ResidentTrainSet(samples, cutk.Normalisation.of(samples))
    recipe = Sgd(Sgd.Options(steps=60, batch_size=64, lr=0.05)).on("cpu")

    def build():
        return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 2))

    torch.manual_seed(0)
    return cutk.Task(recipe.train(build(), train), train, bad[:20], recipe, build=build), truth


@pytest.mark.parametrize(("final", "rounds"), [("restart", 1), ("retrain", 2)])
def test_of_two_classes_nobody_is_suspected_under_a_label_that_nobody_known_has(final, rounds):
    task, truth = two_classes()
    call, clean = task.private(seed=3), task.train.labels == 0
    model = Seal(Seal.Options(final=final, rounds=rounds)).unlearn(call)
    assert not call.log.suspected[clean].any()
    assert call.log.suspected[~clean].any()
    wrong = (task.recipe.predict(model, task.train) != truth)[clean]
    assert wrong.float().mean() < 0.02


@pytest.mark.parametrize("final", ["restart", "retrain"])
def test_the_whole_method_hears_a_probe_under_the_labels_that_it_was_told_of(final, monkeypatch):
    task, _ = two_classes()
    probed = torch.linspace(0, 1, 400) * (task.train.labels == 1)
    probed[task.identified] = 1.0

    def weights(trusted):
        settled = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        told = Posterior(probed[concerned(task)], 0.5, {1: 0.3}, trusted)
        monkeypatch.setattr(seal_module, "suspected", lambda *_: told)
        monkeypatch.setattr(Seal, "_transition", lambda *_: settled)
        return Seal(Seal.Options(final=final)).unlearn(task.private(seed=3)).state_dict()["0.weight"]

    assert not torch.equal(weights((1,)), weights(()))
    assert torch.equal(weights((0,)), weights(()))


def test_nor_does_the_last_training_suspect_them():
    task, _ = two_classes()
    labels, q, w = task.train.labels, torch.zeros(400), torch.tensor([[0.0, 1], [1, 0]])
    probed, logits = torch.full((400,), 0.3), torch.randn(400, 2, generator=seeded())
    loss = correcting(task, following(task, Suspicion(q, probed, probed > 0), w, 2), w, open_too=False)
    batch = cutk.Batch(torch.zeros(400, 1), labels, torch.arange(400))
    loss(logits, batch)  # from the half on, those of label 1 are what the model said here
    asked = (labels == 1).index_fill(0, task.identified, False)
    q = torch.where(asked, agreed(otherwise(logits, labels, w[labels]), probed), q)
    expected = task.recipe.loss(weighted(logits, 1 - q), batch) + (q * complementary_loss(logits, w[labels])).mean()
    assert torch.allclose(loss(logits, batch), expected)


@pytest.mark.parametrize(
    ("settled", "lr", "rate"),
    [((0, 1), 0.03, 0.03), ((0, 1), None, 0.05), ((0,), 0.03, None), ((), None, None)],
)
def test_a_restart_is_as_slow_as_a_round_where_all_suspects_are_taught(task, settled, lr, rate, monkeypatch):
    task = task.knowing(torch.tensor([1, 2, 4]))
    labels = task.train.labels[task.identified].unique()
    weights = 1 - torch.eye(task.num_classes)
    for place in settled:
        weights[labels[place]] = torch.eye(task.num_classes)[labels[1 - place]]
    monkeypatch.setattr(Seal, "_transition", lambda *_: weights)
    rates, fit, taught = [], Seal._fit, []
    monkeypatch.setattr(seal_module, "teaching", lambda *given: (taught.append(given), teaching(*given))[1])
    monkeypatch.setattr(Seal, "_fit", lambda *given: (rates.append(given[-2]), fit(*given))[1])
    Seal(Seal.Options(lr=lr)).unlearn(task.private(seed=3))
    assert rates == [lr or 0.05, rate]
    assert len(taught) == (rate is not None)
    Seal(Seal.Options(lr=lr, final="retrain")).unlearn(task.private(seed=3))
    assert len(taught) == (rate is not None)


def test_suspects_that_are_taught_their_class_learn_it_as_others_learn_theirs(monkeypatch):
    task, _ = two_classes()
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


def test_a_restart_that_teaches_asks_the_model_whom_to_teach():
    task, _ = two_classes()
    labels, q, w = task.train.labels, torch.full((400,), 0.25), torch.tensor([[0.0, 1], [1, 0]])
    probed, logits = torch.full((400,), 0.3), torch.randn(400, 2, generator=seeded())
    batch = cutk.Batch(torch.zeros(400, 1), labels, torch.arange(400))
    loss = teaching(task, following(task, Suspicion(q, probed, probed > 0), w, 2), w)
    assert torch.equal(loss(logits, batch), teaching(task, unchanging(q), w)(logits, batch))
    asked = (labels == 1).index_fill(0, task.identified, False)
    said = torch.where(asked, agreed(otherwise(logits, labels, w[labels]), probed), q)
    assert torch.equal(loss(logits, batch), teaching(task, unchanging(said), w)(logits, batch))


def test_the_likeliest_class_is_one_that_the_transition_weighs():
    logits = torch.randn(50, 4, generator=seeded())
    weights = torch.rand(50, 4, generator=seeded(1)) * (torch.arange(4) != 2)
    assert torch.equal(likeliest(logits, weights), (logits.softmax(1) * weights).argmax(1))
    assert torch.equal(likeliest(logits, torch.eye(4)[torch.full((50,), 3)]), torch.full((50,), 3))
    assert likeliest(torch.tensor([[40.0, 1.0, 0.0]]), torch.tensor([[0.0, 0.5, 1.0]])).tolist() == [1]


def test_seal_may_retrain_without_a_round(task):
    call = task.private(seed=3)
    Seal(Seal.Options(final="retrain", rounds=0)).unlearn(call)
    assert len(call.log.scalars["known_part"]) == 1


def test_seal_counts_its_passes():
    sizes = cutk.Sizes(train=12, identified=2, batch_size=6, steps=4)
    for final, after in (("tune", 1 / 3), ("restart", 2 / 3 + 0.5), ("retrain", 2 / 3 + 2)):
        prepare, rest = Seal.passes(Seal.Options(final=final, rounds=2, passes=1.5, restart_part=0.25), sizes)
        assert (prepare, rest) == (pytest.approx(2 / 3), pytest.approx(3.0 + after))


def test_retraining_with_a_loss_of_ones_own(task):
    given = task.retrain(torch.arange(12), loss=lambda logits, batch: 2 * cutk.cross_entropy(logits, batch))
    plain = task.retrain(torch.arange(12), loss=cutk.cross_entropy)
    again = task.retrain(torch.arange(12))
    assert all(torch.equal(a, b) for a, b in zip(plain.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(plain.parameters(), given.parameters(), strict=True))
