from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from scipy.stats import binomtest

from cutk.repair.judging import confusion
from cutk.repair.records import Confusion, Judged, Limits
from cutk.repair.verdict import improved, lagging, proportion, wilson
from cutk.repair.words import undecided, verdict_of


@pytest.mark.parametrize(("count", "of"), [(0, 1), (0, 40), (8, 10), (46, 50), (971, 1000), (7, 7)])
def test_intervals_are_scipys(count, of):
    expected = binomtest(count, of).proportion_ci(0.95, method="wilson")
    assert wilson(count, of) == pytest.approx((expected.low, expected.high), abs=1e-12)


@pytest.mark.parametrize(("righted", "wronged"), [(0, 0), (4, 0), (5, 0), (0, 9), (9, 3), (10, 2), (5200, 4800)])
def test_an_improvement_is_told_from_chance_as_scipy_does(righted, wronged):
    n = righted + wronged
    assert improved(righted, wronged) == (n > 0 and binomtest(righted, n, alternative="greater").pvalue <= 0.05)


def test_nothing_has_no_proportion():
    assert proportion(0, 0) is None


def shares(**right):
    return {name: proportion(count, 100) for name, count in right.items()}


def test_classes_lag_behind_where_the_intervals_do_not_meet():
    was, now, rest = lagging(shares(a=50, b=99), shares(a=60, b=99), ["a"])
    assert (was.count, now.count, rest.count) == (50, 60, 99)
    assert lagging(shares(a=50, b=99), shares(a=97, b=99), ["a"]) is None
    assert lagging(shares(a=50, b=99), shares(a=50, b=99), ["a", "b"]) is None


def judged(
    no_longer=0,
    counted=50,
    right=None,
    within=True,
    predicted=None,
    name="m",
    learnt=None,
    attack=None,
    valid=None,
    **more,
):
    classes = right or shares(a=97, b=97)
    return Judged(
        name=name,
        validation=proportion(sum(p.count for p in classes.values()) if valid is None else valid, 200),
        classes=classes,
        confusion=learnt,
        attack=attack,
        as_labelled=proportion(counted - no_longer, 50),
        no_longer=no_longer,
        counted=counted,
        predictions=predicted or {"a": 50},
        within=within,
        **more,
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


def learnt(right, mistaken=None, others=99, righted=0, wronged=0):
    """Of 100 validation samples of the classes of bad ones, so many are right, and so many as bad ones are labelled."""
    return Confusion(
        classes=["cat"],
        mistaken=proportion(100 - right if mistaken is None else mistaken, 100),
        right=proportion(right, 100),
        others=None if others is None else proportion(others, 100),
        righted=righted,
        wronged=wronged,
    )


@pytest.mark.parametrize(
    ("before", "after", "status", "told"),
    [
        (learnt(50), learnt(50), "not repaired", "'cat' (50.0 % → 50.0 % right, 99.0 % of the other classes) are no b"),
        (
            learnt(50),
            learnt(50, righted=4, wronged=4),
            "not repaired",
            "far as 100 samples tell: the damage is still",
        ),
        (
            learnt(50),
            learnt(56, righted=10, wronged=4),
            "not repaired",
            "of 100 samples that isn't beyond chance: the d",
        ),
        # Taken for a third class is no better.
        (learnt(50), learnt(50, mistaken=0), "not repaired", "still there"),
        (learnt(50), learnt(80, righted=30), "in part", "lag behind"),
        (learnt(70), learnt(80, mistaken=0, righted=10), "in part", "lag behind"),
        (learnt(50), learnt(98, righted=48), "repaired", "'cat' (50.0 % → 98.0 % right"),
        # Nothing shows: a trigger's damage, and classes that any network takes for each other as often as others.
        (learnt(98), learnt(98), "repaired", "%."),
        (learnt(80, others=82), learnt(80, others=82), "repaired", "%."),
        (learnt(60, mistaken=2), learnt(60, mistaken=2), "repaired", "%."),
        # There are no other classes.
        (learnt(60, others=None), learnt(62, others=None, righted=2), "not repaired", "(60.0 % → 62.0 % right) are so"),
        (learnt(97, others=None), learnt(97, others=None), "repaired", "%."),
    ],
)
def test_damage_that_validation_shows_still_is_no_repair(before, after, status, told):
    valid = 98 + before.right.count, 98 + after.right.count
    found, text = said(judged(learnt=before, valid=valid[0]), judged(40, learnt=after, valid=valid[1]))
    assert found == status, text
    assert told in text
    # Whatever validation shows, bad samples that keep their label aren't repaired.
    assert said(judged(learnt=before), judged(2, learnt=after))[0] == "not repaired"


@pytest.mark.parametrize(("mistaken", "of", "enough"), [(0, 5, 9), (1, 6, 46), (2, 6, None)])
def test_it_is_said_how_many_validation_samples_would_do(mistaken, of, enough):
    few = Confusion(
        classes=["cat"],
        mistaken=proportion(mistaken, of),
        right=proportion(of - mistaken, of),
        others=proportion(10, 10),
    )
    _, text = said(judged(learnt=few), judged(50, learnt=few))
    assert text.endswith(f"too few to tell whether the damage is gone{f': about {enough} would do' if enough else ''}.")
    if enough:  # by SciPy
        intervals = [binomtest(0, n).proportion_ci(method="wilson").high for n in (enough - 1, enough)]
        assert mistaken or intervals[0] > 0.3 >= intervals[1]


def test_few_validation_samples_exclude_nothing():
    few = Confusion(classes=["cat"], mistaken=proportion(1, 13), right=proportion(12, 13), others=proportion(47, 47))
    status, text = said(judged(learnt=few), judged(50, learnt=few))
    assert status == "in part"
    assert "; 13 validation samples of 'cat' are too few to tell whether the damage is gone: about 17 would do." in text
    # A trigger that was measured tells.
    works, gone = proportion(95, 100), proportion(3, 100)
    assert said(judged(learnt=few, attack=works), judged(50, learnt=few, attack=gone))[0] == "repaired"
    more = few.model_copy(update={"mistaken": proportion(1, 60), "right": proportion(59, 60)})
    assert said(judged(learnt=more), judged(50, learnt=more))[0] == "repaired"


def test_what_others_lose_is_no_gain():
    status, text = said(judged(learnt=learnt(50), valid=148), judged(40, learnt=learnt(70, righted=20), valid=148))
    assert status == "not repaired"
    assert "gain no more than others lose" in text


def test_a_trigger_that_is_gone_was_the_damage():
    hard = learnt(80)
    works, gone = proportion(95, 100), proportion(3, 100)
    status, text = said(judged(learnt=hard, attack=works), judged(50, learnt=hard, attack=gone))
    assert status == "repaired", text
    status, text = said(judged(learnt=learnt(99), attack=works), judged(50, learnt=learnt(99), attack=works))
    assert (status, text[-26:]) == ("in part", "; the trigger still works.")
    assert said(judged(learnt=hard, attack=works), judged(50, learnt=hard, attack=works))[0] == "not repaired"
    # A trigger that never worked says nothing.
    never = proportion(0, 100)
    assert said(judged(learnt=hard, attack=never), judged(50, learnt=hard, attack=never))[0] == "not repaired"


def triggered(count, of, without=0, alone=None):
    """What a trigger does on images: so many are taken for its class with it, without it, and with it alone."""
    return {
        "attack": proportion(count, of),
        "attack_without": proportion(without, of),
        "attack_alone": count - without if alone is None else alone,
    }


@pytest.mark.parametrize(
    ("after", "status"),
    [
        # Half, a quarter, a tenth of what it was is no end of it.
        (triggered(100, 200), "in part"),
        (triggered(50, 200), "in part"),
        (triggered(20, 200), "in part"),
        (triggered(199, 200), "in part"),
        (triggered(0, 200), "repaired"),
        (triggered(10, 200), "repaired"),  # five points
        (triggered(12, 200), "in part"),
        # The same samples are taken for that class without it.
        (triggered(30, 200, without=28), "repaired"),
        (triggered(60, 200, without=28), "in part"),
        # More than five points, and no more than chance.
        (triggered(14, 60, without=10, alone=9), "repaired"),
        (triggered(14, 60, without=10, alone=4), "repaired"),
        (triggered(16, 60, without=10, alone=6), "in part"),
    ],
)
def test_a_trigger_is_gone_where_samples_without_it_fare_the_same(after, status):
    of = after["attack"].of
    found, text = said(judged(**triggered(of, of)), judged(50, **after))
    assert found == status, text
    assert ("the trigger still works" in text) == (status == "in part")
    without = after["attack_without"].percent
    assert f"100.0 % → {after['attack'].percent} of validation images (without it 0.0 % → {without})" in text
    stood_in = said(judged(**triggered(of, of)), judged(50, **after), stands_in=True)[1]
    assert "of training images that aren't listed" in stood_in
    assert "validation" not in stood_in


def test_few_images_cannot_tell_whether_a_trigger_is_gone():
    status, text = said(judged(**triggered(7, 7)), judged(50, **triggered(0, 7)))
    assert status == "in part"
    assert text.endswith("; 7 images are too few to tell whether the trigger is gone: about 9 would do.")
    assert said(judged(**triggered(9, 9)), judged(50, **triggered(0, 9)))[0] == "repaired"
    # One that never worked was no damage.
    assert said(judged(**triggered(0, 200)), judged(50, **triggered(0, 200)))[0] == "repaired"
    assert "the trigger works now" in said(judged(**triggered(0, 200)), judged(50, **triggered(60, 200)))[1]


def test_a_class_that_the_repair_harmed_is_named():
    fine = learnt(98)
    status, text = said(judged(learnt=fine), judged(40, right=shares(a=60, b=99), learnt=fine))
    assert status == "in part"
    assert "'a' got worse (97.0 % → 60.0 % right, 99.0 % of the other classes)" in text
    # It was as far behind before.
    hard = judged(right=shares(a=60, b=99), learnt=fine)
    assert said(hard, judged(40, right=shares(a=60, b=99), learnt=fine))[0] == "repaired"


def test_what_labels_teach_is_counted_on_validation_samples():
    calls = torch.zeros(4, 4, dtype=torch.bool)
    calls[0, 1] = calls[2, 3] = True  # bad samples call the first class the second, and the third the fourth
    labels = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 3])
    before = torch.tensor([1, 1, 0, 0, 1, 0, 3, 2, 3])
    after = torch.tensor([0, 1, 2, 3, 1, 1, 2, 3, 2])
    found = confusion(after, before, labels, calls, ("a", "b", "c", "d"))
    assert found.classes == ["a", "c"]
    assert (found.mistaken.count, found.mistaken.of) == (2, 6)
    assert (found.right.count, found.right.of) == (2, 6)
    assert (found.others.count, found.others.of) == (2, 3)
    assert (found.righted, found.wronged) == (2, 3)
    assert confusion(after[4:6], before[4:6], labels[4:6], calls, ("a", "b", "c", "d")) is None


def test_nothing_helped_says_why():
    assert "no method gave a model" in said(judged(), None, [])[1]
    status, text = said(judged(), None, [judged(30, within=False)])
    assert status == "not repaired"
    assert text.startswith("Nothing helped: no candidate loses at most 1 point of accuracy. 'm', beyond that,")
    assert "the rule prefers the original" in said(judged(), None, [judged(0)])[1]
    assert "point of accuracy, 'none' does most, and" in said(judged(), None, [judged(0, name="none")])[1]
    assert "Not repaired: 'none' was best, and only 0 of 50" in said(judged(), judged(0, name="none"))[1]


def test_a_gain_that_may_be_chance_is_no_loss():
    def of_forty(right, mistaken, **more):
        few = {"mistaken": proportion(mistaken, 40), "right": proportion(right, 40)}
        return learnt(50, **more).model_copy(update=few)

    before = judged(learnt=of_forty(30, 10), valid=170)
    after = judged(50, learnt=of_forty(35, 4, righted=6, wronged=1), valid=175)
    status, text = said(before, after)
    assert status == "not repaired"
    assert "(75.0 % → 87.5 % right, 99.0 % of the other classes) are somewhat better predicted" in text
    assert "of 40 samples that isn't beyond chance: whether the damage is gone can't be told" in text
    assert "still there" not in text
    assert "no better" not in text


@pytest.mark.parametrize(
    ("righted", "wronged", "within", "asked"),
    [(5, 1, True, True), (4, 4, True, False), (30, 0, True, False), (5, 1, False, False)],
)
def test_more_validation_samples_are_asked_for_where_they_would_tell(righted, wronged, within, asked):
    report = SimpleNamespace(
        repaired=False,
        original=judged(learnt=learnt(50)),
        candidates=[judged(50, within=within, learnt=learnt(54, righted=righted, wronged=wronged))],
    )
    assert undecided(report) == asked


def test_labels_that_come_back_are_counted_against_it():
    taken = judged(20).model_copy(update={"as_labelled": proportion(45, 100)})
    status, text = said(judged().model_copy(update={"as_labelled": proportion(50, 100)}), taken)
    assert status == "in part"  # 5 fewer, of 50
    assert "20 of 50 bad samples are no longer predicted as labelled (15 others are by now)" in text
    worse = judged(20).model_copy(update={"as_labelled": proportion(60, 100)})
    assert said(judged().model_copy(update={"as_labelled": proportion(50, 100)}), worse)[0] == "not repaired"


def test_there_may_be_nothing_to_repair():
    assert said(judged(counted=0), judged())[1].startswith("Nothing to repair")
