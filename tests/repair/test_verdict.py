from __future__ import annotations

import pytest
from scipy.stats import binomtest

from cutk.repair.records import Judged, Limits
from cutk.repair.verdict import lagging, proportion, wilson
from cutk.repair.words import verdict_of


@pytest.mark.parametrize(("count", "of"), [(0, 1), (0, 40), (8, 10), (46, 50), (971, 1000), (7, 7)])
def test_intervals_are_scipys(count, of):
    expected = binomtest(count, of).proportion_ci(0.95, method="wilson")
    assert wilson(count, of) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_nothing_has_no_proportion():
    assert proportion(0, 0) is None


def shares(**right):
    return {name: proportion(count, 100) for name, count in right.items()}


def test_classes_lag_behind_where_the_intervals_do_not_meet():
    was, now, rest = lagging(shares(a=50, b=99), shares(a=60, b=99), ["a"])
    assert (was.count, now.count, rest.count) == (50, 60, 99)
    assert lagging(shares(a=50, b=99), shares(a=97, b=99), ["a"]) is None
    assert lagging(shares(a=50, b=99), shares(a=50, b=99), ["a", "b"]) is None


def judged(no_longer=0, counted=50, right=None, within=True, predicted=None, name="m"):
    classes = right or shares(a=97, b=97)
    return Judged(
        name=name,
        validation=proportion(sum(p.count for p in classes.values()), 200),
        classes=classes,
        as_labelled=proportion(counted - no_longer, 50),
        no_longer=no_longer,
        counted=counted,
        predictions=predicted or {"a": 50},
        within=within,
    )


LIMITS = Limits(max_accuracy_loss=0.01)


def said(original, taken, candidates=None, stands_in=False):
    return verdict_of(original, candidates if candidates is not None else [taken], taken, LIMITS, stands_in)


def test_the_verdict_is_plain():
    status, text = said(judged(), judged(46))
    assert status == "repaired"
    assert text == (
        "m repairs it: 46 of 50 bad samples are no longer predicted as labelled, validation accuracy 97.0 → 97.0 %."
    )
    assert said(judged(), judged(20))[0] == "in part"
    assert said(judged(), judged(2))[0] == "not repaired"
    assert "accuracy on training samples" in said(judged(), judged(46), stands_in=True)[1]


def test_damage_that_validation_shows_still_is_no_repair():
    broken = shares(a=50, b=99)
    status, text = said(judged(right=broken), judged(40, right=broken))
    assert status == "not repaired"
    assert "'a' (50.0 % right, 99.0 % of the other classes) are no better predicted" in text
    status, text = said(judged(right=broken), judged(40, right=shares(a=80, b=99)))
    assert status == "in part"
    # A class that the repair itself harmed.
    assert said(judged(), judged(40, right=shares(a=60, b=99)))[0] == "in part"


def test_nothing_helped_says_why():
    assert "no method gave a model" in said(judged(), None, [])[1]
    status, text = said(judged(), None, [judged(30, within=False)])
    assert status == "not repaired"
    assert text.startswith("Nothing helped: no candidate loses at most 1 point of accuracy. m, beyond that,")
    assert "the rule prefers the original" in said(judged(), None, [judged(0)])[1]


def test_labels_that_come_back_are_counted_against_it():
    taken = judged(20).model_copy(update={"as_labelled": proportion(45, 100)})
    status, text = said(judged().model_copy(update={"as_labelled": proportion(50, 100)}), taken)
    assert status == "in part"  # 5 fewer, of 50
    assert "20 of 50 bad samples are no longer predicted as labelled (15 others are by now)" in text
    worse = judged(20).model_copy(update={"as_labelled": proportion(60, 100)})
    assert said(judged().model_copy(update={"as_labelled": proportion(50, 100)}), worse)[0] == "not repaired"


def test_there_may_be_nothing_to_repair():
    assert said(judged(counted=0), judged())[1].startswith("Nothing to repair")
