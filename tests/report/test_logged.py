from __future__ import annotations

import pytest

from cutk.report.experiments import experiments_of
from cutk.report.logged import logged
from cutk.report.style import drawing, svg


def drawn(runs):
    (experiment,) = experiments_of(runs)
    with drawing():
        return {one.name: one for one in (draw() for draw in logged(experiment))}


def logging(made, alpha, scalars, **over):
    return made.run("mine", alpha, 0, [made.attempt(0.5, 0.9, scalars=scalars, **over.pop("attempt", {}))], **over)


def test_a_curve_is_a_line_for_each_alpha(made):
    runs = [made.original(0, 0.1, 0.9), *(logging(made, a, {"loss": [3.0, 2.0, None, 1.0]}) for a in (0.1, 0.5))]
    figure = drawn(runs)["toy-tiny-logged-mine-loss"]
    (ax,) = figure.figure.axes
    assert [line.get_ydata()[:2].tolist() for line in ax.lines] == [[3.0, 2.0], [3.0, 2.0]]
    assert [text.get_text() for text in figure.figure.legends[0].texts] == ["α = 0.1", "α = 0.5"]
    assert set(figure.tips.values()) == {"mine, α = 0.1: seed 0", "mine, α = 0.5: seed 0"}
    assert svg(figure.figure, figure.name, figure.tips).count("<a ") == 2


def test_single_values_are_drawn_against_alpha(made):
    runs = [logging(made, alpha, {"changed": [10 * alpha]}) for alpha in (0.1, 0.5)]
    figure = drawn(runs)["toy-tiny-logged-mine-changed"]
    (ax,) = figure.figure.axes
    assert [dots.get_offsets().tolist() for dots in ax.collections] == [[[0.1, 1.0]], [[0.5, 5.0]]]
    assert ax.get_xlabel() == "Identified fraction α"


def test_what_prepare_logged_is_drawn_of_the_state_that_was_used(made):
    prepared = {"s1": {"loss": [1.0, 2.0]}, "s2": {"loss": [5.0, 6.0]}}
    runs = [logging(made, 0.5, {"loss": [9.0, 8.0]}, prepared=prepared, attempt={"state": "s2"})]
    figures = drawn(runs)
    assert list(figures) == ["toy-tiny-logged-mine-prepare-loss", "toy-tiny-logged-mine-loss"]
    (line,) = figures["toy-tiny-logged-mine-prepare-loss"].figure.axes[0].lines
    assert line.get_ydata().tolist() == [5.0, 6.0]


def test_a_histogram_is_left_to_its_metric(made):
    assert drawn([logging(made, 0.5, {"x_edges": [0.0, 1.0], "x_counts": [3.0, 4.0], "none": []})]) == {}


def test_a_long_curve_is_thinned_out(made):
    (figure,) = drawn([logging(made, 0.5, {"loss": [float(i) for i in range(10_000)]})]).values()
    (line,) = figure.figure.axes[0].lines
    assert len(line.get_ydata()) <= 200
    assert line.get_xdata()[-1] == pytest.approx(10_000, abs=100)


def test_names_of_one_slug_are_two_figures(made):
    assert len(drawn([logging(made, 0.5, {"a b": [1.0, 2.0], "a|b": [1.0, 2.0], "<i>": [1.0, 2.0]})])) == 3
