"""What is suspected, judged: against SciPy, and by hand."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import mannwhitneyu

from cutk_builtin.ranking import area_under_roc, average_precision, precision_at, precisions

NAMES = ("alpha_error", "average_precision", "label_precision", "precision", "precision_at_recall", "recall", "roc")


def evaluation(suspected=None, **changes):
    """Eight samples, of which 1, 2, 5 and 6 are manipulated and 6 is known."""
    truth = SimpleNamespace(
        manipulated=torch.tensor([1, 2, 5, 6]),
        train=SimpleNamespace(labels=torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])),
        classes=("ant", "bee"),
    )
    values = {
        "truth": truth,
        "identified": torch.tensor([6]),
        "suspicion": None if suspected is None else torch.tensor(suspected),
        "probabilistic": True,
    }
    return SimpleNamespace(**{**values, **changes})


@pytest.fixture
def value(registry):
    """Return what a detection metric says of an evaluation."""
    return lambda name, about: registry.get("metric", f"detection_{name}").component().compute(about)


# Of the unknown ones, by suspicion: 1 (bad), 0, 5 (bad), 3 and 2 (bad) together, 4, 7.
SUSPICION = [0.8, 0.9, 0.3, 0.3, 0.2, 0.6, 1.0, 0.0]


def test_detection_by_hand(value):
    about = evaluation(SUSPICION)
    assert value("average_precision", about) == pytest.approx((1 / 1 + 2 / 3 + 3 / 5) / 3)
    assert value("roc", about) == pytest.approx((4 + 3 + 2.5) / 12)
    assert value("precision", about) == pytest.approx(2 / 3)
    assert value("recall", about) == pytest.approx(2 / 3)
    assert value("alpha_error", about) == pytest.approx(1 / 4 - 1 / (1 + 3.1))
    assert value("label_precision", about) == pytest.approx({"ant": (1 + 2 / 4) / 2, "bee": 1.0})
    curve = value("precision_at_recall", about)
    assert [curve["0.3"], curve["0.35"], curve["0.65"], curve["0.7"], curve["1"]] == pytest.approx(
        [1, 2 / 3, 2 / 3, 3 / 5, 3 / 5]
    )


def test_an_order_says_nothing_of_how_much_is_known(value):
    about = evaluation(SUSPICION, probabilistic=False)
    assert value("alpha_error", about) is None
    assert value("recall", about) == pytest.approx(2 / 3)


def test_who_suspects_nobody_has_no_detection_to_judge(value):
    for name in NAMES:
        assert value(name, evaluation()) is None
        assert value(name, evaluation(SUSPICION, identified=None)) is None
    all_known = evaluation(SUSPICION, identified=torch.tensor([1, 2, 5, 6]))
    assert (
        value("recall", all_known)
        is value("average_precision", all_known)
        is value("precision_at_recall", all_known)
        is None
    )
    assert value("alpha_error", all_known) == pytest.approx(1 - 4 / (4 + 1.3))
    assert value("label_precision", all_known) == {}


@pytest.mark.parametrize("seed", range(4))
def test_ranking_agrees_with_scipy_and_a_loop(seed):
    chance = torch.Generator().manual_seed(seed)
    positive = torch.rand(300, generator=chance) < 0.1
    scores = (torch.rand(300, generator=chance) + 0.5 * positive).mul(20).round() / 20  # with ties
    there = mannwhitneyu(scores[positive].numpy(), scores[~positive].numpy()).statistic
    assert area_under_roc(scores, positive) == pytest.approx(there / int(positive.sum()) / int((~positive).sum()))
    expected, before = 0.0, 0.0
    for threshold in sorted(set(scores.tolist()), reverse=True):
        above = [i for i in range(300) if scores[i] >= threshold]
        hits = sum(bool(positive[i]) for i in above)
        recall = hits / int(positive.sum())
        expected += (recall - before) * hits / len(above)
        before = recall
    assert average_precision(scores, positive) == pytest.approx(expected)
    precision, recall = precisions(scores, positive)
    assert len(precision) == len(scores.unique())
    assert recall[-1] == 1
    # Of ties at the edge as many count as there is room for: the mean over random orders.
    count = int(positive.sum())
    drawn = []
    for _ in range(2000):
        order = torch.randperm(300, generator=chance)
        order = order[scores[order].argsort(descending=True, stable=True)]
        drawn.append(float(positive[order[:count]].double().mean()))
    assert precision_at(scores, positive, count) == pytest.approx(sum(drawn) / len(drawn), abs=0.01)


def test_ranking_of_one_kind_alone_means_nothing():
    scores = torch.tensor([0.1, 0.2])
    for every in (torch.ones(2, dtype=torch.bool), torch.zeros(2, dtype=torch.bool)):
        assert average_precision(scores, every) is area_under_roc(scores, every) is precision_at(scores, every, 1)
        assert average_precision(scores, every) is None
