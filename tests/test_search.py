from __future__ import annotations

import pytest

import cutk
from cutk.run.search import Score, expand_grid, pin, search_points, select


def test_the_score_is_half_validation_and_half_changed():
    assert Score(0.8, 0.4).value == pytest.approx(0.6)


def test_selection_by_hand():
    # 0.5·0.9 + 0.5·0.0 = 0.45; 0.5·0.7 + 0.5·1.0 = 0.85; 0.5·0.2 + 0.5·1.0 = 0.6
    assert select([Score(0.9, 0.0), Score(0.7, 1.0), Score(0.2, 1.0)]) == 1


def test_a_tie_goes_to_the_higher_validation_accuracy_and_then_to_the_earlier_point():
    assert select([Score(0.5, 1.0), Score(1.0, 0.5), Score(0.75, 0.75)]) == 1
    assert select([Score(0.5, 0.5), Score(0.5, 0.5)]) == 0


def test_a_failed_point_is_never_selected():
    assert select([None, Score(0.1, 0.0), None]) == 1
    with pytest.raises(ValueError, match="at least one"):
        select([None])


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
