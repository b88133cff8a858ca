from __future__ import annotations

import os
from types import SimpleNamespace

import pytest

from cutk import Summary
from cutk.problem.truth import Curve
from cutk.run.observer import Observer
from cutk.run.records import Attempt, Measured, Record
from cutk.run.summary import Stat, best_on_test, curve_of, nothing_to_correct, stat, summarise

AIM = Measured(name="m", objective="unlearning")


class Highest(Summary):
    """Highest mean of the metric."""

    name = "highest"
    of = ("m",)

    def summarise(self, curve: Curve) -> float | None:
        best = max(curve.values["m"].values())
        return best if best > 0.5 else None


class Broken(Highest):
    """Raises."""

    def summarise(self, curve: Curve) -> float | None:
        raise ZeroDivisionError("by zero")


def record(role, seed, value, *, alpha=None, unlearner=None, selected=True, **over):
    about = {
        "dataset": "d",
        "manipulation": "x",
        "model": "n",
        "recipe": "sgd",
        "manipulated": 4,
        "identified": None,
        "options": {},
        "selection_score": None,
        "breakdowns": {},
        "seconds": None,
        "provider": "p",
        "key": "k",
    }
    about |= {"role": role, "seed": seed, "metrics": {"m": value}, "alpha": alpha, "unlearner": unlearner}
    return Record(**{**about, "selected": selected, **over})


def references(seeds=(0, 1), original=0.1, gold=0.9):
    return [record(role, s, v) for s in seeds for role, v in (("original", original), ("gold", gold))]


def at(seed, alpha, value, unlearner="u", **over):
    return record("unlearned", seed, value, alpha=alpha, unlearner=unlearner, **over)


def summarised(records, summaries=None, measured=(AIM,), failed=()):
    return summarise(summaries or {"highest": Highest}, records, measured, failed=failed)


def test_statistics_by_hand():
    assert stat([]) is None
    assert stat([0.5]) == Stat(0.5, None, 1, 0.5, 0.5)
    assert stat([0.1, 0.3, 0.2]) == Stat(pytest.approx(0.2), pytest.approx(0.1), 3, 0.1, 0.3)
    assert stat([0.1, 0.3]).overlaps(stat([0.3, 0.5]))
    assert not stat([0.1, 0.3]).overlaps(stat([0.31, 0.5]))


def test_a_curve_holds_means_and_each_seed():
    records = references()
    curve = curve_of(
        {1.0: [at(0, 1.0, 0.6), at(1, 1.0, 0.8)], 0.5: [at(0, 0.5, 0.2), at(1, 0.5, 0.4)]}, records[::2], records[1::2]
    )
    assert list(curve.values["m"]) == [0.5, 1.0]
    assert curve.values["m"] == {0.5: pytest.approx(0.3), 1.0: pytest.approx(0.7)}
    assert (curve.original, curve.gold) == ({"m": pytest.approx(0.1)}, {"m": pytest.approx(0.9)})
    assert [seed.values for seed in curve.seeds] == [{"m": {0.5: 0.2, 1.0: 0.6}}, {"m": {0.5: 0.4, 1.0: 0.8}}]


def test_a_seed_that_is_missing_somewhere_is_left_out_everywhere():
    records = references()
    curve = curve_of({1.0: [at(0, 1.0, 0.6), at(1, 1.0, 0.8)], 0.5: [at(1, 0.5, 0.4)]}, records[::2], records[1::2])
    assert curve.values == {"m": {0.5: 0.4, 1.0: 0.8}}
    assert curve_of({1.0: [at(0, 1.0, 0.6)], 0.5: [at(1, 0.5, 0.4)]}, records[::2], records[1::2]) is None


def test_a_summary_is_of_the_means_and_comes_with_what_seeds_give():
    (found,), failures = summarised([*references(), at(0, 1.0, 0.6), at(1, 1.0, 0.8)])
    assert found.model_dump() == {
        "dataset": "d",
        "manipulation": "x",
        "model": "n",
        "recipe": "sgd",
        "unlearner": "u",
        "alphas": [1.0],
        "seeds": 2,
        "metrics": {"highest": pytest.approx(0.7)},
        "intervals": {"highest": (0.6, 0.8)},
        "note": "",
    }
    assert failures == []


def test_a_seed_that_never_gets_there_is_the_worst():
    (found,), _ = summarised([*references(), at(0, 1.0, 0.3), at(1, 1.0, 0.9)])
    assert found.intervals["highest"] == (None, 0.9)
    (found,), _ = summarised([*references(), at(0, 1.0, 0.3), at(1, 1.0, 0.4)])
    assert (found.metrics["highest"], found.intervals["highest"]) == (None, (None, None))


def test_one_seed_has_no_interval():
    (found,), _ = summarised([*references((0,)), at(0, 1.0, 0.6)])
    assert found.intervals == {}


@pytest.mark.parametrize(
    ("original", "gold", "higher", "nothing"),
    [
        ([0.1, 0.3], [0.9, 1.0], True, False),
        ([0.85, 0.86], [0.94, 0.95], True, True),  # 0.9 of 0.945 is 0.8505
        ([0.84, 0.85], [0.94, 0.95], True, False),
        ([0.2, 0.8], [0.7, 0.9], True, True),  # within the spread
        ([0.9, 1.0], [0.0, 0.1], False, False),
        ([0.0, 0.3], [0.0, 0.1], False, True),
    ],
)
def test_nothing_to_correct_where_the_original_is_as_good_as_gold(original, gold, higher, nothing):
    assert bool(nothing_to_correct("m", stat(original), stat(gold), higher)) is nothing


def test_nothing_is_said_of_what_was_not_measured():
    assert nothing_to_correct("m", None, stat([0.5])) == nothing_to_correct("m", stat([0.5]), None) == ""


def test_there_is_no_summary_where_there_was_nothing_to_correct():
    (found,), _ = summarised([*references(original=0.89), at(0, 1.0, 0.6), at(1, 1.0, 0.8)])
    assert (found.metrics, found.intervals) == ({}, {})
    assert found.note.startswith("Nothing to correct here")
    # What doesn't say how far damage was undone is none the worse.
    (found,), _ = summarised([*references(original=0.89), at(0, 1.0, 0.6), at(1, 1.0, 0.8)], measured=())
    assert found.metrics == {"highest": pytest.approx(0.7)}


def test_the_baseline_is_summarised_and_references_are_not():
    found, _ = summarised([*references((0,)), at(0, 1.0, 0.6), at(0, 1.0, 0.2, "none")])
    assert {one.unlearner for one in found} == {"u", "none"}


def test_only_selected_models_count():
    (found,), _ = summarised([*references((0,)), at(0, 1.0, 0.6), at(0, 1.0, 1.0, selected=False)])
    assert found.metrics["highest"] == pytest.approx(0.6)


def test_where_no_seed_has_a_model_there_is_no_summary():
    records = [*references(), *(at(seed, alpha, 0.8) for seed in (0, 1) for alpha in (0.1, 1.0))]
    failed = {("x", "u", 0.5), ("x", "other", 0.2)}
    (found,), _ = summarised(records, failed=failed)
    assert (found.metrics, found.note) == ({}, "Failed at α = 0.5: there is no model of any seed.")
    # Where another seed has one, the seed is left out, as ever.
    (found,), _ = summarised([*records, at(0, 0.5, 0.2)], failed=failed)
    assert (found.metrics, found.note) == ({"highest": pytest.approx(0.8)}, "")


def test_what_a_summary_prints_is_no_part_of_the_answer(capsys):
    class Loud(Highest):
        """Says something."""

        def summarise(self, curve):
            print("debug: hello")
            return super().summarise(curve)

    summarised([*references(), at(0, 1.0, 0.6), at(1, 1.0, 0.8)], {"loud": Loud})
    said = capsys.readouterr()
    assert said.out == ""
    assert "debug: hello" in said.err


def test_a_summary_that_raises_hurts_no_other():
    (found,), (failure,) = summarised(
        [*references(), at(0, 1.0, 0.6), at(1, 1.0, 0.8)], {"b": Broken, "highest": Highest}
    )
    assert found.metrics == {"highest": pytest.approx(0.7)}
    assert (failure.what, failure.metric, failure.unlearner, failure.alpha) == ("summary", "b", "u", None)
    assert failure.reason.startswith("ZeroDivisionError: by zero")
    assert "summarise" in failure.traceback


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "high"])
def test_a_summary_that_is_no_number_fails(value):
    class Odd(Highest):
        """Returns something odd."""

        def summarise(self, curve):
            return value

    (found,), (failure,) = summarised([*references(), at(0, 1.0, 0.6), at(1, 1.0, 0.8)], {"odd": Odd})
    assert (found.metrics, failure.metric) == ({}, "odd")


def test_a_summary_of_what_was_not_measured_is_absent():
    (found,), failures = summarised([*references((0,)), at(0, 1.0, 0.6, metrics={})])
    assert (found.metrics, failures) == ({}, [])


def test_what_a_summary_changes_is_named_and_put_back():
    class Patching(Highest):
        """Seeds chance anew."""

        def summarise(self, curve):
            os.environ["PATCHED"] = "1"
            return super().summarise(curve)

    class Told(Observer):
        def __init__(self):
            self.warnings = []

        def warning(self, text):
            self.warnings.append(text)

    told = Told()
    summarise({"patching": Patching}, [*references(), at(0, 1.0, 0.6), at(1, 1.0, 0.8)], (AIM,), told)
    assert told.warnings == ["The summary 'patching' changed the environment variables; that was put back."]
    assert "PATCHED" not in os.environ


@pytest.mark.parametrize(
    ("attempts", "best"),
    [
        ([{"a": 0.5, "b": 0.9}, {"b": 0.95}], 0),  # the second one's mean would be of what it is good at
        ([{"b": 0.9}, {"b": 0.95}], 1),
        ([{"a": 0.5}, {"b": 0.9}], None),
        ([{}, {}], None),
        ([{"a": 0.5, "b": 0.5, "cost": 9.0}, {"a": 0.6, "b": 0.5, "cost": 1.0}], 1),
    ],
)
def test_a_point_without_a_number_is_not_the_best_for_it(attempts, best):
    measured = {"a": AIM, "b": AIM, "cost": Measured(name="cost")}
    run = SimpleNamespace(measured=measured, attempts=[Attempt(metrics=metrics) for metrics in attempts])
    assert best_on_test(run, measured) == best
