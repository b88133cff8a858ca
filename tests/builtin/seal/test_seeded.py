"""The seeded probe: each part against hand computed cases or SciPy, the whole on clusters."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import optimize, stats

import cutk_builtin.seeded as seeded_module
from cutk_builtin.densities import Normal, at_most, log_odds, mixed, normal_of
from cutk_builtin.ranking import average_precision
from cutk_builtin.seeded import (
    FOLDS,
    common_alpha,
    posterior,
    probe,
    shifted,
    standardised,
    tied,
    transition,
)


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
