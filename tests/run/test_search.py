from __future__ import annotations

from dataclasses import replace

import pytest
import torch

import cutk
from cutk.run.search import expand_grid, pin, search_points


def test_a_grid_is_a_product_or_a_list():
    assert expand_grid({"a": [1, 2], "b": ["x", "y"]}) == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert expand_grid([{"a": 1, "b": 2}]) == [{"a": 1, "b": 2}]
    assert expand_grid([]) == expand_grid({}) == [{}]


def test_pinning_filters_points_that_have_the_value_and_overrides_where_none_has():
    points = [{"a": 1, "b": 1}, {"a": 1, "b": 5}, {"a": 2, "b": 2}]
    assert pin(points, "a", [1]) == points[:2]
    assert pin(points, "a", [9]) == [{"a": 9, "b": 1}, {"a": 9, "b": 5}, {"a": 9, "b": 2}]
    assert pin(points, "c", [0, 1]) == [{**p, "c": 0} for p in points] + [{**p, "c": 1} for p in points]
    assert pin([{}], "a", [3]) == [{"a": 3}]


class Searchable(cutk.Unlearner):
    """For tests."""

    name = "searchable"
    grid = ({"a": 1}, {"a": 2}, {"a": 3})


def test_search_modes():
    assert search_points(Searchable, {}, "grid") == [{"a": 1}, {"a": 2}, {"a": 3}]
    assert search_points(Searchable, {}, "default") == [{}]
    assert search_points(Searchable, {"a": [2]}, "grid") == [{"a": 2}]
    assert search_points(Searchable, {"a": [7, 8]}, "default") == [{"a": 7}, {"a": 8}]


def test_the_papers_grid_for_ssd_has_its_50_points(registry):
    points = expand_grid(registry.get("unlearner", "ssd").component.grid)
    assert len(points) == 50
    assert {point["selection_weight"] for point in points} == {0.1, 1, 10, 50, 100, 500, 1e3, 1e4, 1e5, 1e6}
    ratios = {round(point["dampening"] / point["selection_weight"], 9) for point in points}
    assert ratios == {0.1, 0.5, 1, 5, 10}


def test_a_random_search_draws_points_of_the_grid_and_the_same_ones_every_time(registry):
    ssd = registry.get("unlearner", "ssd").component
    grid = expand_grid(ssd.grid)
    drawn = search_points(ssd, {}, "random:7")
    assert len(drawn) == 7
    assert [point for point in grid if point in drawn] == drawn
    assert search_points(ssd, {}, "random:7") == drawn
    assert search_points(ssd, {}, "random:99") == grid
    pinned = search_points(ssd, {"selection_weight": [10.0, 50.0]}, "random:3")
    assert len(pinned) == 3
    assert {point["selection_weight"] for point in pinned} <= {10.0, 50.0}


class Scaling(cutk.Unlearner):
    """Multiplies the weights."""

    name = "scaling"

    class Options(cutk.Options):
        by: float = cutk.option(1.0, help="what with")

    def unlearn(self, task, state=None):
        with torch.no_grad():
            for parameter in task.original.parameters():
                parameter.mul_(self.options.by)
        return task.original


class Backwards(cutk.Selector):
    """Takes the first point once it has seen three, and the last one before."""

    name = "backwards"
    measures = ("validation_accuracy",)

    def value(self, score):
        return 0.0

    def choose(self, scores):
        return 0 if len(scores) == 3 else len(scores) - 1


def test_a_rule_may_come_back_to_an_earlier_point(bench, setup_of, having, tmp_path):
    setup = setup_of(alphas=[0.5], evaluate="all")
    points = [{"by": 1.0}, {"by": 0.0}, {"by": -1.0}]
    results, _ = bench(having(setup, unlearners=[(Scaling, *points)], selector=(Backwards,)))
    (chosen,) = [r for r in results.records if r.role == "unlearned" and r.selected]
    assert chosen.options == {"by": 1.0}
    # What is kept is the chosen point's model: a metric that comes later says the same of it.
    later, _ = bench(
        having(
            setup_of(alphas=[0.5], metrics=["retain_accuracy", "passes"]),
            unlearners=[(Scaling, *points)],
            selector=(Backwards,),
        )
    )
    (again,) = [r for r in later.records if r.role == "unlearned"]
    assert again.metrics["retain_accuracy"] == chosen.metrics["retain_accuracy"]


class Faulty(cutk.Selector):
    """Fails in one way or another."""

    name = "faulty"
    way = "none"

    def value(self, score):
        if Faulty.way == "raises":
            raise ZeroDivisionError("nothing to divide by")
        return {"nan": float("nan"), "nothing": None, "sure": True}.get(Faulty.way, 1.0)

    def choose(self, scores):
        return {"beyond": 7, "lost": "first"}.get(Faulty.way, len(scores) - 1)


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("raises", "The selector 'faulty' failed: ZeroDivisionError: nothing to divide by (test_search.py:"),
        ("nan", "The selector 'faulty' gave nan as a value; expected a finite number."),
        ("nothing", "The selector 'faulty' gave None as a value; expected a finite number."),
        ("sure", "The selector 'faulty' gave True as a value; expected a finite number."),
        ("beyond", "The selector 'faulty' chose 7; expected the position of a candidate that has a score, one of [0]."),
        ("lost", "The selector 'faulty' chose 'first'; expected the position of a candidate"),
    ],
)
def test_a_selectors_fault_is_called_its_own(bench, setup_of, having, monkeypatch, way, said):
    monkeypatch.setattr(Faulty, "way", way)
    results, _ = bench(having(setup_of(alphas=[0.5]), unlearners=[(Scaling,)], selector=(Faulty,)))
    (failure,) = results.failures
    assert said in failure.reason


@pytest.mark.parametrize("rule", ["paper", "validation", "product"])
def test_only_what_a_rule_asks_for_is_measured(bench, setup_of, rule):
    results, _ = bench(setup_of(alphas=[0.5], select=rule))
    assert results.failures == []
    run = next(run for run in results.runs if run.unlearner)
    asked = {name for name, value in run.chosen.measured_score.items() if value is not None}
    assert (
        asked
        == {
            "paper": {"validation_accuracy", "changed_fraction"},
            "validation": {"validation_accuracy"},
            "product": {"identified_accuracy", "retained_accuracy"},
        }[rule]
    )


class FindsAll(cutk.Identification):
    """Takes every sample for manipulated."""

    name = "finds-all"

    def identify(self, truth, alpha, generator):
        return torch.arange(len(truth.samples))


def test_where_nothing_is_retained_its_accuracy_is_not_measured(bench, setup_of, having):
    setup = having(setup_of(alphas=[0.5], select="product"), unlearners=[(Scaling,)])
    entry = replace(setup.identification.entry, name=FindsAll.name, component=FindsAll)
    everything = replace(setup.identification, entry=entry, points=(FindsAll.Options(),))
    results, _ = bench(replace(setup, identification=everything))
    assert results.failures == []
    run = next(run for run in results.runs if run.unlearner)
    assert run.chosen.measured_score["retained_accuracy"] is None
